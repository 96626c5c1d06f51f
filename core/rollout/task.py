"""What a user's generation is given and gives back: plain values, without torch, for worker processes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.samples import SamplingParams, Status


@dataclass(frozen=True)
class Task:
    """One sample to be made: a prompt, and how this sample of it is sampled."""

    prompt_tokens: tuple[int, ...]
    prompt_text: str
    row: int  # index in the data source, before shuffling
    label: Any
    metadata: Mapping[str, Any]  # the rest of the row
    sampling: SamplingParams  # its seed is this sample's own; max_response_tokens bounds the whole response
    group: int  # index of the prompt within the step
    index: int  # of the task within the group
    step: int
    evaluation: str = ""  # name of the evaluation set; empty: training


@dataclass(frozen=True)
class Turn:
    """What the model said once.

    `logprobs[i]` is the log-probability of `tokens[i]`; a stop token that ended the turn is among the tokens.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    status: Status
    weight_version: str


@dataclass(frozen=True)
class Response:
    """One training sample: everything after the prompt.

    Attributes:
        tokens: token ids, the environment's among them; at most `task.sampling.max_response_tokens`.
        logprobs: one per token; as the engine gave them, 0.0 where `loss_mask` is 0.
        loss_mask: one per token; 1: the model's own token, which is trained on; 0: not. Left out: all 1.
        extra: plain values for the reward, which finds them in its metadata.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float]
    loss_mask: Sequence[int] | None = None
    status: Status = Status.COMPLETED
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, *parts: Turn | Sequence[int], extra: Mapping[str, Any] | None = None) -> Response:
        """A dialogue in its order: turns of the model, and between them the environment's tokens, masked.

        The status is that of the last turn.
        """
        tokens: list[int] = []
        logprobs: list[float] = []
        loss_mask: list[int] = []
        status = Status.COMPLETED
        for part in parts:
            own = isinstance(part, Turn)
            new = part.tokens if isinstance(part, Turn) else tuple(part)
            tokens += new
            logprobs += part.logprobs if isinstance(part, Turn) else [0.0] * len(new)
            loss_mask += [int(own)] * len(new)
            status = part.status if isinstance(part, Turn) else status
        return cls(tokens, logprobs, loss_mask, status, dict(extra or {}))


class TaskEngine(Protocol):
    """The engine of one task, as a user's generation sees it. All turns of a task go to one engine."""

    async def generate(self, tokens: Sequence[int], params: SamplingParams | None = None) -> Turn:
        """Continue `tokens`. May be called several times, also at once.

        Args:
            params: None: those of the task. Other ones are made by `dataclasses.replace(task.sampling, ...)`. Where
                the seed is the task's, each call gets one of its own, derived from it and from the number of the call.
        Raises:
            ValueError: the engine refuses, in words: token ids outside the vocabulary, or more tokens than it holds.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; no special tokens are added."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, special tokens left out."""
        ...
