"""Files that a script names, read where they are here; a script may name anything."""

from __future__ import annotations

import os

LARGEST_BYTES = 256 * 1024


def is_here(path: str) -> bool:
    """Whether there is such a file; no name is an error."""
    return os.path.isfile(path)


def text_of_file(path: str) -> str | None:
    """The text of a small file; None where it is not here, or is none."""
    try:
        if os.path.isfile(path) and os.stat(path).st_size <= LARGEST_BYTES:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
    except OSError:
        pass
    return None


def lines_of_file(path: str) -> int | None:
    """The number of lines that are not blank; None where the file is not here, or cannot be read."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return sum(1 for line in file if line.strip())
    except OSError:
        pass
    return None
