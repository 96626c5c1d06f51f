"""What a schedule works with: one trainer rank's parts of the run, each as far as a schedule may call it.

A schedule is a function of `Parts` that turns the loop to its end (`core/loop/in_turns.py`, or a user's own: docs/
doors.md). The parts stand behind Protocols, so these are all calls that there are, and tests put fakes in their place.
Every trainer rank runs the schedule. Collective calls say so: all ranks make them, in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from core.algorithm.advantages import Advantages
from core.algorithm.batch import Batch
from core.loop.state import LoopState
from core.rollout.request import Generated, Request
from core.rollout.rollout import Pending
from core.run_dir.moment import Moment
from core.samples import Sample, TrainSample, UpdateResult


class PhasePart(Protocol):
    """The phases of a step: sync, eval, rollout, score, update, save."""

    def __call__(self, name: str, step: int) -> AbstractContextManager[None]:
        """What happens inside belongs to this phase: timed, announced, and given the GPU memory it is to have.

        Collective: all trainer ranks.
        """
        ...

    @property
    def current(self) -> Moment:
        """The phase that this rank is in, or has left last."""
        ...

    def take_times(self) -> dict[str, float]:
        """Seconds per phase since the last call, under their metric names."""
        ...


class Trainer(Protocol):
    """One trainer rank's model and optimiser. Every method is collective over all trainer ranks."""

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        """`train.num_steps_per_rollout` optimiser steps over the same samples on every rank. In phase update."""
        ...

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """The weights under HuggingFace names, whole tensors, bucket by bucket."""
        ...

    def save(self, directory: Path) -> None:
        """Write model, optimiser, schedule and RNG."""
        ...

    def load(self, directory: Path) -> None:
        """Take them back."""
        ...

    def save_hf(self, directory: Path) -> None:
        """Write the model as a HuggingFace directory."""
        ...


class SyncPart(Protocol):
    """Weights, from the trainer to the engines."""

    def push(self, version: str) -> bool:
        """Give the trainer's weights, under this version, to every engine that has another. In phase sync.

        Not while a rollout is under way. Collective: all trainer ranks.
        """
        ...


class RolloutPart(Protocol):
    """Samples from the engines, scores from the rewards. Every method is collective over all trainer ranks."""

    def generate(self, request: Request) -> Generated:
        """Have every prompt answered. In phase rollout."""
        ...

    def start(self, request: Request) -> Pending:
        """Begin to; `finish()` of the result waits for the rest. One at a time."""
        ...

    def settle(self, made: Generated) -> list[Sample]:
        """Wait for the scores; all samples on every rank, by group and index. In phase score."""
        ...


class EvaluationPart(Protocol):
    """The evaluation sets of the run file."""

    @property
    def num_prompts(self) -> dict[str, int]:
        """Set -> number of its prompts."""
        ...

    def due(self, step: int) -> bool:
        """Whether the run file asks for an evaluation before step `step`, and there are sets."""
        ...

    def run(self, step: int, weight_version: str) -> dict[str, dict[str, float]]:
        """Rates of every set that is due: {"set": {"accuracy": 0.5}}. In phase eval; once per step.

        Collective: all trainer ranks.

        Args:
            weight_version: what the engines have.
        """
        ...


class JournalPart(Protocol):
    """What a run tells about itself. Rank 0 writes; on other ranks nothing happens. Collective: none."""

    def evaluated(self, step: int, results: dict[str, dict[str, float]]) -> None:
        """Record an evaluation."""
        ...

    def stepped(self, step: int, batch: Batch, result: UpdateResult, times: dict[str, float]) -> None:
        """Record a complete step, once: its samples, its metrics."""
        ...


class CheckpointsPart(Protocol):
    """The run's checkpoints."""

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written once `step` steps are complete. Collective: all trainer ranks."""
        ...

    def ensure(self, state: LoopState) -> None:
        """Have a checkpoint that holds this state on the disk. In phase save. Collective: all trainer ranks."""
        ...

    def save(self, state: LoopState) -> Path:
        """Write a checkpoint, or begin to: the next step may begin. In phase save. Collective: all trainer ranks."""
        ...

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when what was saved is on the disk; a schedule that has ended is waited for so. Collective: none."""
        ...


class PausePart(Protocol):
    """Whether to stop in time."""

    def due(self, step: int) -> bool:
        """Whether to save and leave before `step`; asked before every step. Collective: all trainer ranks."""
        ...


@dataclass
class Parts:
    """One trainer rank's view of the run.

    Attributes:
        state: where the run stands; a schedule sets it after each step, before it saves.
        request: what a step asks for: (state, version of the weights that are to answer) -> Request. The same on every
            rank.
        advantages: for `make_batch`.
        max_failed_share: of a step's samples that may be without a reward.
        num_steps: of the whole run.
    """

    phase: PhasePart
    state: LoopState
    trainer: Trainer
    sync: SyncPart
    rollout: RolloutPart
    evaluation: EvaluationPart
    journal: JournalPart
    checkpoints: CheckpointsPart
    pause: PausePart
    advantages: Advantages
    request: Callable[[LoopState, str], Request]
    max_failed_share: float
    num_steps: int


class Schedule(Protocol):
    """The loop. Every trainer rank calls it once.

    A schedule that overlaps phases says so by an attribute `overlaps`: ("rollout", "update"). Then trainers and engines
    must not take turns on their GPUs.
    """

    def __call__(self, parts: Parts) -> bool:
        """Turn the loop from `parts.state` to the last step.

        Returns:
            whether the run is complete; False: it was asked to pause, and is saved.
        """
        ...


def overlaps(schedule: Callable[[Parts], bool]) -> Sequence[str]:
    """The phases that go on at the same time; none for most schedules."""
    return tuple(getattr(schedule, "overlaps", ()))
