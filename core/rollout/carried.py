"""Groups that one step has begun and a later one goes on with: `rollout.carry_over_tokens`.

A step with carry-over lets every response grow by that many tokens at a time. As soon as enough groups are complete it
ends, and what is left goes on in the next step: with its tokens, their log-probs, the versions of the weights that made
them, and its seed. Which groups are complete then depends on tokens alone, never on time, so a repeated step carries
over the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from core.samples import Sample, Span, Status

MODEL = "assistant"  # role of what the model said


class Origin(NamedTuple):
    """A group where it was drawn: what its row and its seeds depend on, in whichever step it is answered."""

    position: int  # absolute cursor into the prompt source
    step: int
    group: int  # number in that step


@dataclass(frozen=True)
class CarryOver:
    """The keys of the run file about it.

    Attributes:
        tokens: that each response grows by before the ranks look whether enough groups are complete.
        max_steps: that a group may be carried over.
        masks: whether tokens of older weights are left out of the loss.
    """

    tokens: int
    max_steps: int
    masks: bool = False


@dataclass(frozen=True)
class Carried:
    """A group on its way into the next step.

    Attributes:
        samples: by index, one per task; those that are complete have a reward or a failure, the others go on.
    """

    origin: Origin
    samples: tuple[Sample, ...] = ()


def is_unfinished(sample: Sample) -> bool:
    """Whether a carried sample goes on: it is not complete."""
    return sample.status is Status.ABORTED and sample.reward is None and sample.failure is None


def said_by(sample: Sample) -> list[Span]:
    """The stretches of a response by the weights that made them."""
    whole = Span(0, len(sample.response_tokens), MODEL, weight_version=sample.weight_version)
    return list(sample.turns) or [whole]


def continued(begun: Sample, more: Sample) -> Sample:
    """A response and what was made of it next, as one. The newest weights have read all of it: it has their experts."""
    start = len(begun.response_tokens)
    spans = said_by(begun)
    for one in said_by(more):
        if spans[-1].weight_version == one.weight_version:
            spans[-1] = replace(spans[-1], end=start + one.end)
        else:
            spans.append(replace(one, start=start + one.start, end=start + one.end))
    return replace(
        more,
        response_tokens=begun.response_tokens + more.response_tokens,
        logprobs_engine=begun.logprobs_engine + more.logprobs_engine,
        loss_mask=begun.loss_mask + more.loss_mask,
        turns=spans if len(spans) > 1 else (),
        routing=begun.routing if more.routing is None else more.routing,
    )


def older_spans(sample: Sample, weight_version: str) -> list[Span]:
    """The stretches that other weights than these have made."""
    return [one for one in said_by(sample) if one.weight_version != weight_version]


def without(sample: Sample, spans: Sequence[Span]) -> list[int]:
    """The sample's mask, 0 in these stretches."""
    mask = list(sample.loss_mask)
    for one in spans:
        mask[one.start : one.end] = [0] * (one.end - one.start)
    return mask


def carried_metrics(
    samples: Sequence[Sample], origins: Sequence[Origin], step: int, weight_version: str, num_carried: int
) -> dict[str, float]:
    """Numbers of a step that carries over.

    Args:
        samples: that are trained.
        origins: of their groups, each once.
        num_carried: groups left for the next step.
    """
    ages = [step - origin.step for origin in origins]
    older = sum(one.end - one.start for sample in samples for one in older_spans(sample, weight_version))
    return {
        "rollout/carried/groups": float(num_carried),
        "rollout/carried/trained": float(sum(age > 0 for age in ages)),
        "rollout/carried/age_max": float(max(ages, default=0)),
        "rollout/carried/tokens_ratio": older / max(1, sum(len(sample.response_tokens) for sample in samples)),
    }
