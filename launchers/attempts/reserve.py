"""Room on the disk for what has to be said later, kept from the begin on: the disk may be full by then.

Of an attempt, how it ended; of a submission, which job it became.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder

RESERVED_BYTES = 256 * 1024
ROOM_BYTES = 64 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)


def keep_room(folder: Path) -> None:
    """Fill the reserve, with what no file system can make smaller."""
    with suppress(OSError):
        AttemptFolder(folder).reserve.write_bytes(os.urandom(RESERVED_BYTES))


def make_room(folder: Path) -> None:
    """Give the reserve to what is written next."""
    with suppress(OSError):
        AttemptFolder(folder).reserve.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[Callable[[], None]]:
    """Keep room for a file that can be written only later; gives what makes the room when it is written.

    Raises:
        OSError: there is none.
    """
    kept = path.with_name(f".{path.name}.room")
    try:
        kept.write_bytes(os.urandom(ROOM_BYTES))
        yield lambda: kept.unlink(missing_ok=True)
    finally:
        kept.unlink(missing_ok=True)


def in_reserve(folder: Path, write: Callable[[], None]) -> None:
    """Write something about an attempt's end, in its reserve if there is no other room."""
    try:
        write()
    except OSError as error:
        if error.errno not in FULL:
            raise
        make_room(folder)
        write()
