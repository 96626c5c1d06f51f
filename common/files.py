"""Files that appear whole or not at all. Standard library only."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all, in place of one that is there."""
    with renamed_when_complete(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def renamed_when_complete(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`, to write the file under; on leaving, the file is on the disk and has its name.

    If the block raises, nothing is left of the file, and one that was there before stays.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield unfinished
        flush(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    flush(path.parent)  # or the new name may be lost in a power failure


def put_in_place(unfinished: Path, final: Path) -> None:
    """Give a finished folder its name; on return it is on the disk, whatever happens to the machine.

    A folder that had the name makes way by a rename, so that no slow removal lies between it and this one.
    """
    flush_all(unfinished)
    before = final.with_name(f"{final.name}.before")
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


def flush_all(folder: Path) -> None:
    """Everything in a folder is on the disk when this returns."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def flush(path: Path) -> None:
    """A file's content, or a folder's names, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
