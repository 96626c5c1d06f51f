"""Files that appear whole or not at all. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name in the same folder, then rename it over `path`."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def put_in_place(unfinished: Path, final: Path) -> None:
    """Give a finished folder its name; on return it is on the disk, whatever happens to the machine.

    A folder that had the name makes way by a rename, so that no slow removal lies between it and this one.
    """
    for path in [*unfinished.rglob("*"), unfinished]:
        flush(path)
    before = final.with_suffix(".before")
    shutil.rmtree(before, ignore_errors=True)
    if final.exists():
        os.replace(final, before)
    os.replace(unfinished, final)
    flush(final.parent)
    shutil.rmtree(before, ignore_errors=True)


def append_line(path: Path, text: str, *, durable: bool = False) -> None:
    """Append a line, in one write. A line before it that was cut off, by a full disk, stays a line of its own.

    Args:
        durable: on the disk when this returns.
    """
    with path.open("a+b") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            text = "\n" + text
        file.write(f"{text}\n".encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def flush(path: Path) -> None:
    """A file's content, or a folder's names, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
