"""The loss of a critic: max((V - G)^2, (clip(V, V_old - c, V_old + c) - G)^2) per token, G the return of the token.

Source: PPO's reference code (openai/baselines, ppo2), as slime has it: no factor 1/2, which a learning rate of its own
and Adam make idle. Means over tokens are those of `algorithm.loss_aggregation`.
Legend: R response tokens of a micro-batch, N of all samples of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.algorithm.loss import Metrics

MEANS = frozenset({"train/value_loss", "train/value_clipfrac"})


@dataclass(frozen=True)
class ValueInputs:
    """What the loss needs beside the values; tensors are [R] float32. `weights` is as in `TokenInputs`."""

    weights: Tensor
    values_old: Tensor
    returns: Tensor


class ValueLoss:
    """Squared error of the values, clipped around those that the advantages were made with."""

    def __init__(self, value_clip: float | None) -> None:
        """Take the clip range; None: no clip."""
        self.value_clip = value_clip

    def __call__(self, values: Tensor, _: Tensor | None, inputs: ValueInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: sums that add up over micro-batches and ranks.

        Args:
            values: [R] float32, with gradient.
        Collective: none.
        """
        error = (values - inputs.returns).square()
        clipped = torch.zeros_like(values, dtype=torch.bool)
        if self.value_clip is not None:
            low, high = inputs.values_old - self.value_clip, inputs.values_old + self.value_clip
            near = values.clamp(low, high)  # within the range the same to the bit, so that rounding clips nothing
            other = (near - inputs.returns).square()
            clipped = other > error
            error = torch.maximum(error, other)
        loss = (error * inputs.weights).sum()
        clip_share = (clipped.to(inputs.weights.dtype) * inputs.weights).sum()
        return loss, {"train/value_loss": loss.detach(), "train/value_clipfrac": clip_share}


def explained_variance(
    values: Sequence[Sequence[float]], returns: Sequence[Sequence[float]], loss_masks: Sequence[Sequence[int]]
) -> float | None:
    """1 - Var(G - V) / Var(G) over the tokens that count: 1 is perfect, 0 as good as a constant; None: Var(G) is 0.

    Args:
        values, returns, loss_masks: one list per sample, [N] in all.
    """
    flat = [torch.tensor([x for one in lists for x in one], dtype=torch.float64) for lists in (values, returns)]
    counted = torch.tensor([x for one in loss_masks for x in one]) > 0
    expected, found = (one[counted] for one in flat)
    variance = float(found.var(unbiased=False)) if len(found) else 0.0
    if not variance > 0:
        return None
    return 1.0 - float((found - expected).var(unbiased=False)) / variance
