"""Whoever scores: what the pool of this node and the servers of others have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from core.reward.sample import RewardInput, Score

CLOSED = "the reward pool was closed before the sample was scored"


class RewardsUnavailable(RuntimeError):
    """There is nobody left who could score: not the sample's doing. The message names who is missing."""


class Rewards(ABC):
    """Processes of this node (`RewardPool`) or of others (`RemoteRewardPool`). A context manager; for any thread.

    with rewards:
        future = rewards.submit(sample)  # concurrent.futures.Future[Score]; `await asyncio.wrap_future(future)`
        scores = rewards.score(samples)  # in order, waiting
    """

    @abstractmethod
    def __enter__(self) -> Self:
        """Wait until samples can be scored."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def submit(self, sample: RewardInput) -> Future[Score]:
        """Queue a sample. The future gets a score, or raises `RewardsUnavailable`.

        Raises:
            RuntimeError: not inside `with`.
        """

    @abstractmethod
    def close(self) -> None:
        """Samples without a score get a failure. May be called again."""

    def score(self, samples: Sequence[RewardInput]) -> list[Score]:
        """Score all, in order; waits for the last one."""
        return [future.result() for future in [self.submit(sample) for sample in samples]]
