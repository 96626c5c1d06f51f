"""Failure records: one per process that failed, and one for the attempt that names the process that failed first."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.files import write_atomically
from core.processes.children import Child, log_tail
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment, moment_of
from launchers.attempts.reserve import in_reserve

# What a healthy rank sees when another one has died: never the first cause if any other is known.
SECOND_HAND = (
    "Broken pipe",
    "Connection closed by peer",
    "Connection reset by peer",
    "DriverFailed",
    "Timed out",
    "failed to connect",
)


@dataclass(frozen=True)
class Failure:
    """Who failed, where, doing what, and why."""

    role: str  # trainer, engine, rewards, agent, node, run
    name: str  # trainer: global rank; engine, rewards: its name; agent: its number; node, run: its name
    at: Moment  # what the run was doing
    cause: str  # one line
    pid: int
    host: str = field(default_factory=lambda: os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    exit_code: int | None = None  # negative: the signal
    detail: str = ""  # traceback or the log's last lines
    log: str = ""
    time: float = field(default_factory=time.time)

    def write(self, path: Path) -> None:
        """Write atomically, to a path of an attempt's folder; on a full disk in the attempt's reserve."""
        fields = asdict(self)
        del fields["at"]
        text = json.dumps(self.at.fields() | fields, indent=1)

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)

        in_reserve(AttemptFolder.around(path).path, write)

    @classmethod
    def read(cls, path: Path) -> Failure:
        """Read what `write` wrote, of this or an earlier version."""
        fields = json.loads(path.read_text())
        at = moment_of(fields)
        return cls(at=at, **{name: value for name, value in fields.items() if name not in at.fields()})

    @property
    def blames_node(self) -> bool:
        """Whether the node may be at fault rather than the program: it is lost or unfit, or a process was killed."""
        killed = self.exit_code is not None and self.exit_code < 0 and self.exit_code != -signal.SIGTERM
        return self.role == "node" or (killed and self.role == "trainer")

    @property
    def is_second_hand(self) -> bool:
        """Whether it tells of a peer that is gone: somebody else's failure, which may not be known yet."""
        return not self.blames_node and any(text in self.cause or text in self.detail for text in SECOND_HAND)

    def __str__(self) -> str:
        of_a_process = self.role not in ("node", "run")
        who = f"{self.role} {self.name}" + (f" (pid {self.pid} on {self.host})" if of_a_process else "")
        lines = [f"{who} failed in {self.at}: {self.cause}"]
        if self.detail:
            lines.append(self.detail.rstrip())
        if self.log:
            lines.append(f"log: {self.log}")
        return "\n".join(lines)


def write_record(folder: Path, failure: Failure) -> None:
    """Leave it in an attempt's folder as the failure that ended the attempt."""
    failure.write(AttemptFolder(folder).failure)


def read_record(folder: Path) -> Failure | None:
    """The failure that ended an attempt; None if nobody left a record of one."""
    path = AttemptFolder(folder).failure
    return Failure.read(path) if path.exists() else None


def from_exception(error: BaseException, role: str, name: str, at: Moment, log: str) -> Failure:
    """The record of a process that ends by an exception of its own."""
    cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '(no message)'}"
    detail = "".join(traceback.format_exception(error))
    return Failure(role, name, at, cause, os.getpid(), exit_code=1, detail=detail, log=log)


def from_child(role: str, name: str, at: Moment, child: Child, exit_code: int, cause: str = "") -> Failure:
    """The record of a child that left none of its own: its exit code in words, and the end of its log.

    Args:
        cause: said instead of the exit code.
    """
    return from_log(role, name, at, child.pid, exit_code, child.log_path, cause)


def from_log(role: str, name: str, at: Moment, pid: int, exit_code: int, log: Path, cause: str = "") -> Failure:
    """The record of `from_child`, for a process that another process has started."""
    words = cause or describe_exit(exit_code)
    return Failure(role, name, at, words, pid, exit_code=exit_code, detail=log_tail(log), log=str(log))


def describe_exit(exit_code: int) -> str:
    """An exit code in words."""
    if exit_code < 0:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"exited with code {exit_code}"


def first_cause(failures: Sequence[Failure]) -> Failure:
    """Which of several failures caused the others: a killed process, else an error of its own, else the earliest."""

    def rank(failure: Failure) -> tuple[int, float]:
        killed = failure.exit_code is not None and failure.exit_code < 0 and failure.exit_code != -signal.SIGTERM
        stopped_by_us = failure.exit_code == -signal.SIGTERM
        return (
            0 if killed or failure.role == "node" else 3 if stopped_by_us else 2 if failure.is_second_hand else 1,
            failure.time,
        )

    return min(failures, key=rank)
