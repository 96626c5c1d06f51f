"""What a user's generation is given and gives back: plain values, without torch, for worker processes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.samples import SamplingParams, Span, Status


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
    messages: Sequence[Mapping[str, Any]] = ()  # what the prompt was rendered from; empty: it is text


class SampleFailed(Exception):
    """Raised in a generation: the sample fails, and this text is the whole reason."""


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
class Heard:
    """What others said between two turns of the model: tokens, and the role that they have in the chat template."""

    tokens: Sequence[int]
    role: str = "user"


@dataclass(frozen=True)
class Response:
    """One training sample: everything after the prompt.

    Attributes:
        tokens: token ids, the environment's among them; at most `task.sampling.max_response_tokens`.
        logprobs: one per token; as the engine gave them, 0.0 where `loss_mask` is 0.
        loss_mask: one per token; 1: the model's own token, which is trained on; 0: not. Left out: all 1.
        extra: plain values for the reward, which finds them in its metadata.
        turns: who said what of it, in order; kept in the trajectory store.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float]
    loss_mask: Sequence[int] | None = None
    status: Status = Status.COMPLETED
    extra: Mapping[str, Any] = field(default_factory=dict)
    turns: Sequence[Span] = ()

    @classmethod
    def of(cls, *parts: Turn | Heard | Sequence[int], extra: Mapping[str, Any] | None = None) -> Response:
        """A dialogue in its order: turns of the model, and between them the tokens of others, masked.

        The status is that of the last turn.
        """
        tokens: list[int] = []
        logprobs: list[float] = []
        loss_mask: list[int] = []
        status = Status.COMPLETED
        turns: list[Span] = []
        for part in parts:
            heard = part if isinstance(part, Turn | Heard) else Heard(tuple(part))
            start, new = len(tokens), heard.tokens
            tokens += new
            if isinstance(heard, Turn):
                logprobs += heard.logprobs
                status = heard.status
                turns.append(Span(start, len(tokens), "assistant", weight_version=heard.weight_version))
            else:
                logprobs += [0.0] * len(new)
                turns.append(Span(start, len(tokens), heard.role))
            loss_mask += [int(isinstance(heard, Turn))] * len(new)
        return cls(tokens, logprobs, loss_mask, status, dict(extra or {}), tuple(turns))


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

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of `tokens`, special tokens left out unless asked for."""
        ...

    def render(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool = True) -> str:
        """Messages as the chat template writes them, with the system prompt and the tools of the run.

        Args:
            generation_prompt: up to where the model's next turn begins; False: up to the end of the last message.
        """
        ...

    def after(self, tokens: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of what others say after a turn of the model, up to where its next turn begins.

        The model's tokens stay as they are: an end of turn that it has said itself is not said again.

        Args:
            tokens: that turn, or all of the dialogue up to its end.
            messages: what the others say, at least one.
        Raises:
            ValueError: the chat template does not write one turn after the other.
        """
        ...
