"""Room on the disk for what is to be said of an attempt's end, kept from its begin on: the disk may be full by then."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder

RESERVED_BYTES = 256 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)


def keep_room(folder: Path) -> None:
    """Fill the reserve, with what no file system can make smaller."""
    with suppress(OSError):
        AttemptFolder(folder).reserve.write_bytes(os.urandom(RESERVED_BYTES))


def make_room(folder: Path) -> None:
    """Give the reserve to what is written next."""
    with suppress(OSError):
        AttemptFolder(folder).reserve.unlink(missing_ok=True)


def in_reserve(folder: Path, write: Callable[[], None]) -> None:
    """Write something about an attempt's end, in its reserve if there is no other room."""
    try:
        write()
    except OSError as error:
        if error.errno not in FULL:
            raise
        make_room(folder)
        write()
