"""What a scorer is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OWN_SHARE_OF_TIME = 0.8  # of a sample's limit, for rewards that end by themselves and say what they waited for


@dataclass(frozen=True)
class RewardInput:
    """One response to be scored. It goes to another process: all of it is plain (`core.processes.plain`).

    Attributes:
        metadata: the rest of the row, and what a generation of the user's own adds to it.
        messages: what the prompt was rendered from, each with role and content; empty where the row's prompt is text
            that no template was applied to.
        max_response_tokens: the limit; 0: there is none.
        truncated: whether the response was cut off at the limit.
        row: index in the data source, before shuffling.
        group, index: number of the prompt in the step, and of the sample in its group.
        evaluation: name of the evaluation set; empty: training.
    """

    prompt_text: str
    response_text: str
    label: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = ()
    num_prompt_tokens: int = 0
    num_response_tokens: int = 0
    max_response_tokens: int = 0
    truncated: bool = False
    row: int = 0
    group: int = 0
    index: int = 0
    step: int = 0
    evaluation: str = ""


@dataclass(frozen=True)
class ScoredSample(RewardInput):
    """A response with its reward, as `rollout.filter` sees it.

    Attributes:
        reward: None: there is none, and `failure` says why.
        reward_parts: of a reward that was a mapping: its numbers, the one that counts among them.
    """

    reward: float | None = None
    failure: str | None = None
    reward_parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A reward, or the reason why there is none. Exactly one of the two is set.

    Attributes:
        parts: of a reward that was a mapping: its numbers, the one that counts among them.
    """

    value: float | None
    failure: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
