"""What the job does when an attempt has ended: requeue, without which nodes, or end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.config.sections.slurm import SlurmConfig
from launchers.attempts.history import Attempt

CAPS = {"timeout": "max_timeouts", "preempted": "max_preemptions", "node_failure": "max_failures"}
FRUITLESS = 2  # attempts in a row that the time limit ended, and after which no later step was saved than before


@dataclass(frozen=True)
class Verdict:
    """What the job is to do after an attempt.

    Attributes:
    requeue: whether the job goes back into the queue.
    exclude: nodes to be left out from now on, all that ever failed in this run.
    following: jobs, by component, that wait for this one in a chain: they leave these nodes out too.
    problem: why an unfinished run is not requeued; empty if it is, or needs not.
    """

    requeue: bool
    exclude: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    problem: str = ""

    @property
    def text(self) -> str:
        """The file that the batch script reads."""
        return f"{'requeue' if self.requeue else 'end'}\n{','.join(self.exclude)}\n{' '.join(self.following)}\n"


def judge(
    attempts: Sequence[Attempt], caps: SlurmConfig, may_requeue: bool, following: tuple[str, ...] = ()
) -> Verdict:
    """The verdict on the last attempt.

    Args:
        attempts: all attempts of the run, the last one ended.
        following: the jobs after this one in a chain.
        may_requeue: False on sites that forbid it; there a chain of jobs goes on by itself.
    """
    last = attempts[-1]
    exclude = tuple(sorted({node for attempt in attempts for node in attempt.failed_nodes}))
    if last.how not in CAPS:
        return Verdict(False, exclude, following)
    cap = CAPS[last.how]
    count = sum(attempt.how == last.how for attempt in attempts)
    if count > getattr(caps, cap):
        problem = f"{count} attempts ended by {last.how}, more than slurm.{cap} = {getattr(caps, cap)}"
        return Verdict(False, exclude, following, problem)
    if _fruitless(attempts):
        problem = (
            f"{FRUITLESS} attempts in a row reached the time limit and saved no further step: raise slurm.time "
            f"or lower slurm.signal_s (now {caps.signal_s}); the last one: {last.cause or 'no step fitted in'}"
        )
        return Verdict(False, exclude, following, problem)
    return Verdict(may_requeue, exclude, following)


def _fruitless(attempts: Sequence[Attempt]) -> bool:
    """Whether nothing is gained by another one. What was done and not saved is done again, so it does not count."""
    saved = [attempt.saved_step or 0 for attempt in attempts]
    before = [0, *saved]
    gained = [
        bool(attempt.steps_done) if attempt.saved_step is None else saved[number] > before[number]
        for number, attempt in enumerate(attempts)
    ]
    recent = list(zip(attempts, gained, strict=True))[-FRUITLESS:]
    return len(recent) == FRUITLESS and all(attempt.how == "timeout" and not gain for attempt, gain in recent)
