"""What the loop is made of. The trainer stands behind a Protocol; tests of the loop put fakes in place of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from core.config.schema import AlgorithmConfig
from core.loop.checkpoints import Checkpoints
from core.loop.evaluation import Evaluation
from core.loop.journal import Journal
from core.loop.pause import Pause
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.rollout.rollout import Request, Rollout
from core.samples import TrainSample, UpdateResult
from core.weights.sync import WeightSync


class Trainer(Protocol):
    """One trainer rank. Every method is collective over all trainer ranks."""

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        """One step's optimiser steps over the same samples on every rank."""
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


@dataclass
class Parts:
    """One trainer rank's view of the run."""

    phase: Phases
    state: LoopState
    trainer: Trainer
    sync: WeightSync
    rollout: Rollout
    evaluation: Evaluation
    journal: Journal
    checkpoints: Checkpoints
    pause: Pause
    algorithm: AlgorithmConfig
    request: Callable[[LoopState], Request]
    max_failed_share: float
    num_steps: int
