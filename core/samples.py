"""Prompts, samples and groups: the nouns that the phases hand to each other. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # processes that only score have no use for it
    import numpy as np
    from numpy.typing import NDArray

FlatRouting: TypeAlias = "NDArray[np.integer[Any]]"
"""Experts of the first K tokens of a prompt and its response: [K, layers x experts of a token] uint8 or int16, layer by
layer; 0 in layers without experts."""
BYTE = 256  # experts that a byte tells apart

EPISODE = ("turns", "tool_calls", "tool_errors")  # numbers of a dialogue


class Status(StrEnum):
    """How a response ended."""

    COMPLETED = "completed"  # the model stopped by itself
    TRUNCATED = "truncated"  # max_response_tokens reached
    ABORTED = "aborted"  # cut off by us
    FAILED = "failed"  # no usable reward: `failure` says why
    GIVEN = "given"  # a row has it: no model made it, and nobody scores it


@dataclass(frozen=True)
class Prompt:
    """One row of a data source, rendered and tokenised."""

    row: int  # index in the source, before shuffling
    text: str  # rendered, as the model sees it
    tokens: tuple[int, ...]
    label: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the rest of the row
    messages: Sequence[Mapping[str, Any]] = ()  # what `text` was rendered from; empty: no template was applied


@dataclass(frozen=True)
class Span:
    """A stretch of a response: tokens [start, end), and who said them.

    Attributes:
        role: `assistant` for the model, else as in a chat message.
        reward: what an environment gave for it; None: nothing.
        weight_version: of the weights that said it; empty: others did.
        text: without special tokens; filled in for the trajectory store.
    """

    start: int
    end: int
    role: str
    reward: float | None = None
    weight_version: str = ""
    text: str = ""


@dataclass(frozen=True)
class Demonstration(Prompt):
    """A prompt whose row has the answer too; `response_tokens` and `loss_mask`, 1 at what is learnt, are as long."""

    response_tokens: tuple[int, ...] = ()
    loss_mask: tuple[int, ...] = ()
    response_text: str = ""
    turns: Sequence[Span] = ()


@dataclass
class Sample:
    """One response to one prompt.

    `response_tokens`, `logprobs_engine` and `loss_mask` have the same length. `reward` is None until scored; a failed
    sample keeps reward None and is left out of its group's statistics and of the loss.
    """

    group: int  # index of the prompt within the step
    index: int  # index within the group, of all its samples
    prompt: Prompt
    response_tokens: list[int]
    logprobs_engine: list[float]
    status: Status
    weight_version: str
    response_text: str = ""
    loss_mask: list[int] = field(default_factory=list)
    reward: float | None = None
    failure: str | None = None
    engine: str = ""  # which engine made it
    task: int = -1  # index within the group of the task that made it; left out: it made no other, so `index`
    turns: Sequence[Span] = ()  # of a dialogue, or by the weights that said them; empty: the model said it at once
    episode: Mapping[str, int] = field(default_factory=dict)  # of a dialogue: turns, tool_calls, tool_errors
    seed: int | None = None  # that it was sampled with
    reward_parts: Mapping[str, float] = field(default_factory=dict)  # of a reward that was a mapping: its numbers
    off_policy: bool = False  # whether tokens count that older weights made than those that learn from them first
    routing: FlatRouting | None = field(default=None, compare=False)  # the engine's experts; None: it was not asked

    def __post_init__(self) -> None:
        if not self.loss_mask:
            self.loss_mask = [1] * len(self.response_tokens)
        if self.task < 0:
            self.task = self.index

    @property
    def failed(self) -> bool:
        """Whether it takes no part, as it has no reward and should have one."""
        return self.reward is None and self.status is not Status.GIVEN


@dataclass(frozen=True)
class SamplingParams:
    """Sampling settings of one request, under the engine-neutral names of the run file."""

    max_response_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class TrainSample:
    """One response as the trainer needs it; the per-token lists are as long as `response_tokens`."""

    group: int
    prompt_tokens: Sequence[int]
    response_tokens: Sequence[int]
    loss_mask: Sequence[int]
    advantage: float | Sequence[float]  # of the response, or of each of its tokens; 0 until there are values for it
    logprobs_engine: Sequence[float]
    logprobs_old: Sequence[float] | None = None
    logprobs_ref: Sequence[float] | None = None
    task: int | None = None  # index within the group of the task that made it; None: it made no other
    reward: float | None = None  # None: there is none
    routing: FlatRouting | None = field(default=None, compare=False)  # the engine's experts; None: they are not known

    @property
    def has_advantage(self) -> bool:
        """Whether it is anything but 0 anywhere."""
        return any(self.advantage) if isinstance(self.advantage, Sequence) else self.advantage != 0


@dataclass(frozen=True)
class UpdateResult:
    """What an update did; the same on every rank.

    `logprobs` holds, per sample, the policy's log-probs of the response tokens before the first optimiser step; NaN
    where the sample was not computed (core/megatron/rows/computed.py). `logprobs_ref` holds the reference model's,
    likewise; None if the update used none. `logprobs_policy` holds the policy's at the optimiser step that learnt from
    the sample: with several of them in an update, or old log-probs of older weights, they are not the old ones.
    `advantages` holds those that were made in it, with a critic's values or a KL in the rewards; None: it made none.
    """

    metrics: dict[str, float]
    logprobs: list[list[float]]
    logprobs_ref: list[list[float]] | None = None
    logprobs_policy: list[list[float]] | None = None
    advantages: Sequence[float | Sequence[float]] | None = None
