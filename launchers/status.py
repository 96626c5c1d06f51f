"""`ebbtide status`: what a run is doing, from its files and what Slurm says about its job. Pure but for `read_status`.

States: not started, pending, starting, running, stopping, between attempts (requeued), complete, failed, cancelled,
interrupted, lost (its processes are gone and nothing wrote why).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from core.run_directory import RunDirectory
from launchers.history import Advance, Attempt, History, read_history
from launchers.job_record import JobRecord, read_record

if TYPE_CHECKING:
    from hpc.queue import JobState

LIVE_STATES = ("not started", "pending", "starting", "running", "stopping", "between attempts")
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED"}
WORKING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED"}


@dataclass(frozen=True)
class Status:
    """One run at one moment."""

    directory: RunDirectory
    history: History
    state: str
    job_id: str | None = None
    nodes: tuple[str, ...] = ()
    reason: str = ""
    left_s: float | None = None  # walltime
    now: float = 0.0

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        return self.state in LIVE_STATES

    @property
    def advance(self) -> Advance:
        """How far it has come."""
        return self.history.advance


def read_status(directory: RunDirectory, states: Mapping[str, JobState], now: float) -> Status:
    """The status of a run, given what Slurm says of the jobs it knows.

    Args:
        states: by job id; a job that is not in it is one that Slurm has forgotten.
    """
    history, record = read_history(directory), read_record(directory)
    last = history.last
    alive = last is not None and last.how is None and last.job is None and runs_here(last)
    return status_of(directory, history, record, states, alive=alive, now=now)


def status_of(
    directory: RunDirectory,
    history: History,
    record: JobRecord | None,
    states: Mapping[str, JobState],
    *,
    alive: bool,
    now: float,
) -> Status:
    """As `read_status`, from what has been read. `alive`: whether a run without a job still has its process."""
    job_id = current_job(job_ids(history, record), states)
    job = states.get(job_id) if job_id else None
    state = _state(history, job, has_job=job_id is not None, alive=alive)
    last = history.last
    running = state in ("starting", "running", "stopping")
    return Status(
        directory,
        history,
        state,
        job_id=job_id,
        nodes=tuple(job.nodes) if job and running else last.nodes if last else (),
        reason=_reason(state, last, job),
        left_s=job.end - now if job and running and job.end is not None else None,
        now=now,
    )


def job_ids(history: History, record: JobRecord | None) -> tuple[str, ...]:
    """The jobs of a run's newest submission; of a script that was submitted by hand, the ledger knows the job."""
    last = history.last
    if record is not None and (last is None or last.job is None or last.job in (*record.job_ids, *record.earlier)):
        return record.job_ids
    if last is not None and last.job is not None:
        return (last.job,)
    return ()


def current_job(ids: Sequence[str], states: Mapping[str, JobState]) -> str | None:
    """Of a chain: the job that works, else the next one to wait for, else the last one that Slurm knows."""
    for wanted in (WORKING, WAITING):
        for job_id in ids:
            if job_id in states and states[job_id].state in wanted:
                return job_id
    known = [job_id for job_id in ids if job_id in states]
    return (known or list(ids) or [None])[-1]


def _state(history: History, job: JobState | None, *, has_job: bool, alive: bool) -> str:
    last = history.last
    if job is not None and job.state in WAITING:
        return "between attempts" if last is not None else "pending"
    if job is not None and job.state in WORKING:
        return _at_work(history, job)
    if history.complete:
        return "complete"
    if job is not None and job.state == "CANCELLED":
        return "cancelled"
    if last is None:
        return "failed" if job is not None else "lost" if has_job else "not started"
    if last.how is None:
        return "running" if alive else "failed" if job is not None else "lost"
    return last.how if last.how in ("failed", "interrupted", "lost") else "failed" if has_job else last.how


def _at_work(history: History, job: JobState) -> str:
    last = history.last
    if job.state == "COMPLETING":
        return "stopping"
    if last is None or last.how is not None or last.restart != job.restarts:
        return "stopping" if history.complete else "starting"
    return "running"


def _reason(state: str, last: Attempt | None, job: JobState | None) -> str:
    """Why it waits, or why it ended."""
    if state in ("pending", "between attempts") and job is not None:
        return job.reason or ""
    if state in ("failed", "lost", "cancelled", "interrupted"):
        own = (last.cause or _how(last)) if last is not None else ""
        slurm = f"Slurm: {job.state}" if job is not None and job.state not in ("COMPLETED", "FAILED") else ""
        return own or slurm or ("see `ebbtide logs`" if state == "failed" else "")
    return ""


def _how(attempt: Attempt) -> str:
    """How it ended, where that is not what the state says already."""
    return attempt.how.replace("_", " ") if attempt.how in ("timeout", "preempted", "node_failure") else ""


def runs_here(attempt: Attempt) -> bool:
    """Whether the process that began the attempt lives on this host (a newer one of the same pid is another)."""
    if attempt.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(attempt.pid)
        return process.create_time() <= attempt.began + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def is_mine(attempt: Attempt) -> bool:
    """Whether the attempt's process belongs to this user."""
    try:
        return psutil.Process(attempt.pid).uids().real == os.getuid()
    except psutil.Error:
        return False
