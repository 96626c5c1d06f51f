"""What a scorer is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

READY = "ready"  # a worker's first answer


@dataclass(frozen=True)
class RewardInput:
    """One response to be scored. It travels to another process: picklable, and plain (`core.plain`) to another node."""

    prompt_text: str
    response_text: str
    label: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the rest of the row


@dataclass(frozen=True)
class Score:
    """A reward, or the reason why there is none. Exactly one of the two is set."""

    value: float | None
    failure: str | None = None


class Rewards(Protocol):
    """Whoever scores: processes of this node (`RewardPool`) or of others (`core.reward.remote`)."""

    def submit(self, sample: RewardInput) -> Future[Score]:
        """Queue a sample. The future gets a score, or raises `RewardsUnavailable`."""
        ...


class RewardsUnavailable(RuntimeError):
    """There is nobody left who could score: not the sample's doing. The message names who is missing."""
