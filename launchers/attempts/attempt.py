"""One attempt in a run directory: the lock, its number and folder, its key, and its two lines in the ledger."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.ledger import Ledger
from launchers.attempts.outcome import Outcome
from launchers.attempts.provenance import note_provenance
from launchers.attempts.reserve import keep_room, make_room

LOCK_POLL_S = 0.5


class RunBusy(RuntimeError):
    """Another attempt is working in the run directory."""


@dataclass(frozen=True)
class OpenAttempt:
    """The attempt that this process leads."""

    directory: RunDirectory
    number: int
    key: str

    @property
    def folder(self) -> Path:
        """Folder of the attempt's logs and records."""
        return self.directory.attempt(self.number)

    def end(self, outcome: Outcome, exit_code: int) -> None:
        """Note how it ended, and forget its key."""
        make_room(self.folder)
        Ledger(self.directory).ended(self.number, outcome, exit_code)
        AttemptFolder(self.folder).key.unlink(missing_ok=True)


@contextmanager
def open_attempt(
    directory: RunDirectory,
    nodes: Sequence[str],
    job: str | None = None,
    restart: int = 0,
    wait_s: float = 0.0,
    begins: Callable[[], None] = lambda: None,
) -> Iterator[OpenAttempt]:
    """Begin the next attempt. The caller ends it; if nobody does, the next one finds it open and says so.

    Args:
        nodes: the nodes it runs on, in order.
        wait_s: how long to wait for the lock: a file server may hold a dead node's for a while.
        begins: called when the lock is held and nothing is written yet; from then on there is something to end.
    Raises:
        RunBusy: if another process runs an attempt in this directory.
    """
    with locked(directory, wait_s):
        begins()
        number = directory.next_attempt()
        folder = directory.attempt(number)
        folder.mkdir(parents=True)
        remove_what_dead_attempts_left(directory)
        key = secrets.token_hex(24)
        with open(os.open(AttemptFolder(folder).key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
        keep_room(folder)
        _point_latest_to(directory, number)
        Ledger(directory).began(number, nodes, job, restart)
        note_provenance(directory, number)
        yield OpenAttempt(directory, number, key)


def note_complete(directory: RunDirectory, wait_s: float = 0.0) -> None:
    """Note in the ledger that a run is complete, if its last attempt was stopped when everything had been written.

    Args:
        wait_s: as of `open_attempt`.
    Raises:
        RunBusy: likewise; never where the ledger says so already.
    """
    ledger = Ledger(directory)
    attempts = ledger.attempts()
    if attempts and attempts[-1].how != "complete":
        with locked(directory, wait_s):
            ledger.ended(attempts[-1].number, Outcome("complete"), 0)


def remove_what_dead_attempts_left(directory: RunDirectory) -> list[Path]:
    """Remove keys, and what else is there while an attempt is, of those whose agents were killed.

    The caller holds the lock, so no attempt is at work.

    Returns:
        what was removed.
    """
    attempts = map(AttemptFolder, directory.attempts())
    found = [path for attempt in attempts for path in attempt.made_for_its_time if path.exists()]
    for path in found:
        path.unlink(missing_ok=True)
    return found


@contextmanager
def locked(directory: RunDirectory, wait_s: float = 0.0) -> Iterator[None]:
    """Nobody else works in the run directory; the kernel lets go of the lock when this process ends, however it ends.

    Args:
        wait_s: as of `open_attempt`.
    Raises:
        RunBusy: likewise.
    """
    end = time.monotonic() + wait_s
    with directory.lock.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    raise RunBusy(
                        f"{directory.path} is in use by another ebbtide process ({file.read().strip() or 'unnamed'}): "
                        "wait for it, or stop it"
                    ) from None
                time.sleep(LOCK_POLL_S)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _point_latest_to(directory: RunDirectory, number: int) -> None:
    unfinished = directory.latest.with_name(f".latest-{os.getpid()}")
    unfinished.symlink_to(directory.attempt(number).name)
    os.replace(unfinished, directory.latest)
