"""`ebbtide logs`: which log files a run has, which of them are asked for, and what is new in them.

Left out: mixing the lines of several files by time; each file's lines are shown under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder, StartFolder
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import Attempt
from launchers.attempts.job_record import read_record

ROLES = ("trainer", "engine", "rewards", "agent", "torchrun", "task", "batch")
SHOWN_FIRST = (("trainer", 0), ("agent", 0), ("task", 0), ("batch", 0))  # if nothing is asked for: the first there is
ENGINE_LOG = re.compile(r"(?P<name>.*engine\d+(?:-arm\d+)?)\.(?P<incarnation>\d+)\.log")
REWARDS_LOG = re.compile(r"node(?P<rank>\d+)-rewards\.(?P<incarnation>\d+)\.log")
RANKED_LOG = re.compile(r"(?P<role>trainer|agent|torchrun|task)-(?P<rank>\d+)\.log")


class LogsError(ValueError):
    """There is no such log. The message says which there are."""


@dataclass(frozen=True)
class LogFile:
    """One log. `rank`: trainers: global rank; agents, torchrun, rewards, tasks: node; engines: order of names."""

    path: Path
    role: str
    rank: int

    @property
    def name(self) -> str:
        """Short, for headings."""
        return self.path.name


def latest_attempt(directory: RunDirectory) -> int:
    """The newest attempt that has a folder; 0: none."""
    return directory.next_attempt() - 1


def find_logs(directory: RunDirectory, attempts: Sequence[Attempt], number: int) -> list[LogFile]:
    """All logs of one attempt: its folder's, and those of its Slurm job.

    Before the first attempt (`number` 0), and where the ledger does not know the job, those of the newest job.
    """
    attempt = next((attempt for attempt in attempts if attempt.number == number), None)
    if attempt is not None and attempt.job is None and number:
        job_logs: list[Path] = []
    elif attempt is not None and attempt.job is not None:
        job_logs = [*_task_logs(directory.job_start(attempt.job, attempt.restart)), directory.batch_log(attempt.job)]
    else:
        job_logs = [*newest_start(directory), *newest(directory.batch_logs())]
    record = read_record(directory)
    if record is not None and "_" in record.job_id:  # of a sweep's array, whose batch logs lie together
        job_logs.append(RunDirectory(directory.path.parent).batch_log(record.job_id))
    own = AttemptFolder(directory.attempt(number)).logs() if number else ()
    return classify([*own, *(path for path in job_logs if path.exists())])


def classify(paths: Iterable[Path]) -> list[LogFile]:
    """Logs in the order of roles and ranks; other files are passed over."""
    paths = sorted(paths)
    engines = sorted({match["name"] for path in paths if (match := ENGINE_LOG.fullmatch(path.name))})
    found: list[LogFile] = []
    for path in paths:
        if match := ENGINE_LOG.fullmatch(path.name):
            found.append(LogFile(path, "engine", engines.index(match["name"])))
        elif match := REWARDS_LOG.fullmatch(path.name):
            found.append(LogFile(path, "rewards", int(match["rank"])))
        elif match := RANKED_LOG.fullmatch(path.name):
            found.append(LogFile(path, match["role"], int(match["rank"])))
        elif path.name.startswith("batch-"):
            found.append(LogFile(path, "batch", 0))
    return sorted(found, key=lambda log: (ROLES.index(log.role), log.rank, incarnation(log.path)))


def choose(logs: Sequence[LogFile], role: str | None, rank: int | None) -> list[LogFile]:
    """The logs that were asked for; with nothing asked for, the one that tells the story so far.

    Raises:
        LogsError: no such role or rank, or no logs at all.
    """
    if not logs:
        raise LogsError("found no logs yet; wanted some: the job has not started (`ebbtide status` says why)")
    if role is None and rank is None:
        story = (log for wanted in SHOWN_FIRST for log in logs if (log.role, log.rank) == wanted)
        return [next(story, logs[0])]
    wanted_role = role or "trainer"
    of_role = [log for log in logs if log.role == wanted_role]
    chosen = [log for log in of_role if rank is None or log.rank == rank]
    if not chosen:
        raise LogsError(_no_such_log(logs, of_role, wanted_role, rank))
    return chosen


def _no_such_log(logs: Sequence[LogFile], of_role: Sequence[LogFile], role: str, rank: int | None) -> str:
    if of_role:
        ranks = ", ".join(str(rank) for rank in sorted({log.rank for log in of_role}))
        return f"--rank: found {rank}; wanted a rank that has a log of role {role}: choose from {ranks}"
    there = [role for role in ROLES if any(log.role == role for log in logs)]
    return f"--role: found {role}; wanted one that has logs in this attempt: {', '.join(there)}"


def incarnation(path: Path) -> int:
    """How often the server had been restarted; 0 for other logs."""
    match = ENGINE_LOG.fullmatch(path.name) or REWARDS_LOG.fullmatch(path.name)
    return int(match["incarnation"]) if match else 0


def newest(paths: Iterable[Path]) -> list[Path]:
    """The one written last, or none."""
    return sorted(paths, key=lambda path: path.stat().st_mtime)[-1:]


def newest_start(directory: RunDirectory) -> list[Path]:
    """The task logs of the newest start of the newest job."""
    return [path for folder in newest(directory.job_starts()) for path in _task_logs(folder)]


def _task_logs(start: Path) -> list[Path]:
    return list(StartFolder(start).task_logs())


class Tail:
    """A log's last lines, then what is appended. A file that does not exist yet is empty."""

    def __init__(self, path: Path, num_lines: int | None) -> None:
        """Begin with the last lines of the file.

        Args:
        num_lines: how many old lines to show first; None: all.
        """
        self._path = path
        self._num_lines = num_lines
        self._offset: int | None = None

    def new_lines(self, *, last: bool = False) -> Iterator[str]:
        """Lines since the last call; one without its end waits for the next call, unless this is the last."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset or 0)
            text = file.read()
        whole = len(text) if last else text.rfind(b"\n") + 1
        lines = text[:whole].decode(errors="replace").splitlines()
        if self._offset is None and self._num_lines is not None:
            lines = lines[max(0, len(lines) - self._num_lines) :]
        self._offset = (self._offset or 0) + whole
        yield from lines
