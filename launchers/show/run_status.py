"""`ebbtide status`: what a run is doing, from its files and what Slurm says about its job.

`read_files` reads the run directory and looks for the run's process on this machine, `snapshot` asks Slurm; `status_of`
and what it calls are pure. The states are in `run_state`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.job_state import UNKNOWN, JobState
from hpc.slurm.queue import Poller
from launchers.attempts.history import Advance, Attempt, History, read_history
from launchers.attempts.job_record import JobRecord, read_record
from launchers.show.run_state import WAITING, WORKING, RunState, state_of

SLOW_S = 1.0
IMPOSSIBLE = ("BadConstraints", "PartitionNodeLimit")
NEVER_STARTS = "no nodes are left that fit it; `ebbtide cancel` it, then `ebbtide submit --resume`, with all nodes"
HELD = "Slurm holds it; `scontrol release` and its number let it go on"


@dataclass(frozen=True)
class Files:
    """What a run directory says by itself.

    Attributes:
        alive: a run without a job still has its process on this machine.
        waits: what the newest attempt waits for before it begins; empty: nothing.
    """

    directory: RunDirectory
    history: History
    record: JobRecord | None
    alive: bool = False
    waits: str = ""

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The jobs of the newest submission; of a script that was submitted by hand, the ledger knows the job."""
        last, record = self.history.last, self.record
        if record is None:
            return (last.job,) if last is not None and last.job is not None else ()
        if last is None or last.job in (None, *record.job_ids, *record.earlier) or "_" in record.job_id:
            return record.job_ids  # the ledger knows an array's element by another id
        return (last.job,) if last.job is not None and last.began > record.submitted else record.job_ids


@dataclass(frozen=True)
class Status:
    """One run at one moment."""

    directory: RunDirectory
    history: History
    state: RunState
    job_id: str | None = None
    nodes: tuple[str, ...] = ()
    reason: str = ""
    left_s: float | None = None  # walltime
    now: float = 0.0

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        return self.state.live

    @property
    def advance(self) -> Advance:
        """How far it has come."""
        return self.history.advance


def read_files(directory: RunDirectory) -> Files:
    """Everything that is read from the run directory."""
    history = read_history(directory)
    last = history.last
    alive = last is not None and last.how is None and last.job is None and runs_here(last)
    waits = _read_waits(directory, last) if last is not None and last.how is None else ""
    return Files(directory, history, read_record(directory), alive, waits)


def snapshot(directories: Iterable[RunDirectory], poller: Poller, now: float) -> list[Status]:
    """The status of several runs, with one question to Slurm at most."""
    files, asked = [read_files(directory) for directory in directories], time.monotonic()
    states = poller.states([job_id for read in files for job_id in read.job_ids])
    if time.monotonic() - asked > SLOW_S:  # a busy controller: the run has gone on meanwhile
        files = [read_files(read.directory) for read in files]
    return [status_of(read, states, now) for read in files]


def status_now(directory: RunDirectory, poller: Poller) -> Status:
    """The status of one run at this moment."""
    (status,) = snapshot([directory], poller, time.time())
    return status


def status_of(files: Files, states: Mapping[str, JobState], now: float) -> Status:
    """The status of a run, given the states of its jobs."""
    job_id = current_job(files.job_ids, states)
    job = states.get(job_id, JobState(UNKNOWN)) if job_id else None
    last = files.history.last
    ahead = job is not None and _is_ahead(files, job_id, job)
    state = state_of(files.history, job, alive=files.alive, ahead=ahead)
    return Status(
        files.directory,
        files.history,
        state,
        job_id=job_id,
        nodes=job.nodes if job and state.at_work and job.nodes else last.nodes if last else (),
        reason=_reason(state, last, job, files.waits),
        left_s=job.end - now if job and state.at_work and job.end is not None else None,
        now=now,
    )


def current_job(ids: Sequence[str], states: Mapping[str, JobState]) -> str | None:
    """The job of a chain that works, else the next one to wait for, else the last one that Slurm reported."""
    known = [job_id for job_id in ids if job_id in states and states[job_id].state != UNKNOWN]
    for wanted in (WORKING, WAITING):
        for job_id in known:
            if states[job_id].state in wanted:
                return job_id
    return next(iter((known or list(ids))[-1:]), None)


def _is_ahead(files: Files, job_id: str | None, job: JobState) -> bool:
    """Whether the ledger is newer than what Slurm said some seconds ago: it has an attempt of this start of the job."""
    last, record = files.history.last, files.record
    if last is None or last.restart < (job.restarts or 0):
        return False
    element = record is not None and "_" in record.job_id and last.began > record.submitted
    return last.job == job_id or element


def _read_waits(directory: RunDirectory, last: Attempt) -> str:
    try:
        return AttemptFolder(directory.attempt(last.number)).waits.read_text().strip()
    except OSError:
        return ""


def _reason(state: RunState, last: Attempt | None, job: JobState | None, waits: str) -> str:
    """Why it waits, or why it ended."""
    if state in (RunState.PENDING, RunState.BETWEEN_ATTEMPTS, RunState.UNKNOWN):
        reason = (job.reason if job is not None else None) or ""
        if "held" in reason.lower():
            return f"{reason}: {HELD}"
        return f"{reason}: {NEVER_STARTS}" if reason.strip("()") in IMPOSSIBLE else reason
    if state == RunState.RUNNING and waits:
        return waits
    if state.live or state == RunState.COMPLETE:
        return ""
    own = (last.cause or _how(last)) if last is not None else ""
    telling = job is not None and job.state not in ("COMPLETED", "FAILED", "GONE", "CANCELLED")
    return own or (f"Slurm: {job}" if telling else "") or ("see `ebbtide logs`" if state == RunState.FAILED else "")


def _how(attempt: Attempt) -> str:
    """How it ended, where that is not what the state says already."""
    return attempt.how.replace("_", " ") if attempt.how in ("timeout", "preempted", "node_failure") else ""


def runs_here(attempt: Attempt) -> bool:
    """Whether the process that began the attempt lives on this host (a newer one of the same pid is another)."""
    if attempt.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(attempt.pid)
        return bool(process.create_time() <= attempt.began + 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
