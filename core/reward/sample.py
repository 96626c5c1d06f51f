"""What a scorer is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

READY = "ready"  # a worker's first answer


@dataclass(frozen=True)
class RewardInput:
    """One response to be scored. It goes to another process: label and metadata are plain (`core.processes.plain`)."""

    prompt_text: str
    response_text: str
    label: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the rest of the row


@dataclass(frozen=True)
class Score:
    """A reward, or the reason why there is none. Exactly one of the two is set."""

    value: float | None
    failure: str | None = None
