"""What a run is doing, or how it ended: decided from its ledger and from what Slurm says of its job. Pure."""

from __future__ import annotations

from enum import StrEnum

from hpc.slurm.job_state import GONE, LIVE, UNKNOWN, JobState
from launchers.attempts.history import Attempt, History

WORKING = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "COMPLETING", "STAGE_OUT", "RESIZING")
WAITING = tuple(state for state in LIVE if state not in WORKING)
CLOCK_SLACK_S = 5.0  # between the node that writes the ledger and Slurm's controller


class RunState(StrEnum):
    """The words that a person reads."""

    NOT_STARTED = "not started"
    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BETWEEN_ATTEMPTS = "between attempts"  # requeued
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"  # its processes are gone and nothing wrote why
    UNKNOWN = "unknown"  # Slurm does not answer

    @property
    def at_work(self) -> bool:
        """Whether it has nodes."""
        return self in (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        waits = (RunState.NOT_STARTED, RunState.PENDING, RunState.BETWEEN_ATTEMPTS, RunState.UNKNOWN)
        return self.at_work or self in waits


def state_of(history: History, job: JobState | None, *, alive: bool, ahead: bool) -> RunState:
    """The state of a run.

    Args:
        job: None: the run has none.
        alive: without a job: its process lives on this machine.
        ahead: the ledger is newer than what Slurm said of the job.
    """
    last = history.last
    if history.complete:
        return RunState.COMPLETE
    if job is None:
        return _without_a_job(last, alive)
    if job.state in WAITING:
        return _while_it_waits(last, ahead)
    if job.state == "COMPLETING":
        return RunState.STOPPING
    if job.state in WORKING:
        return _while_it_works(last, job)
    if job.state == UNKNOWN:
        return RunState.UNKNOWN
    return _when_it_has_ended(last, job)


def _without_a_job(last: Attempt | None, alive: bool) -> RunState:
    if last is None:
        return RunState.NOT_STARTED
    if last.how is None:
        return RunState.RUNNING if alive else RunState.LOST
    if last.how in (RunState.INTERRUPTED, RunState.LOST):
        return RunState(last.how)
    return RunState.FAILED


def _while_it_waits(last: Attempt | None, ahead: bool) -> RunState:
    if last is None:
        return RunState.PENDING
    if not ahead:
        return RunState.BETWEEN_ATTEMPTS
    return RunState.RUNNING if last.how is None else RunState.STOPPING


def _while_it_works(last: Attempt | None, job: JobState) -> RunState:
    if last is None or not _begun_since(last, job.start):
        return RunState.STARTING
    return RunState.RUNNING if last.how is None else RunState.STOPPING


def _when_it_has_ended(last: Attempt | None, job: JobState) -> RunState:
    if job.state == "CANCELLED":
        return RunState.CANCELLED
    if last is None:
        return RunState.FAILED
    if last.how in (RunState.INTERRUPTED, RunState.LOST):
        return RunState(last.how)
    if last.how is None and job.state in (GONE, "COMPLETED"):
        return RunState.LOST
    return RunState.FAILED


def _begun_since(attempt: Attempt, start: float | None) -> bool:
    """Whether the attempt belongs to the job's present start, not to one before a requeue."""
    return start is None or attempt.began >= start - CLOCK_SLACK_S
