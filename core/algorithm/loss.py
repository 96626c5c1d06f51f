"""The policy loss of one micro-batch, as a plain sum that adds up over micro-batches and data-parallel ranks.

Source: clipped surrogate, PPO, arXiv:1707.06347, eq. 7; KL estimators, joschu.net/blog/kl-approx.html.
Left out: dual clip, sequence-level ratios, importance correction for the engine-trainer mismatch.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.config.schema import AlgorithmConfig

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class TokenInputs:
    """What the loss needs beside the policy's own log-probs; every tensor is [R] float32.

    `weights` is the loss mask over the global batch's denominator: a weighted sum over all tokens of the batch is a
    mean. `logprobs_old=None` means on-policy: the policy's own log-probs, detached.
    """

    weights: Tensor
    advantages: Tensor
    logprobs_engine: Tensor
    logprobs_old: Tensor | None = None
    logprobs_ref: Tensor | None = None


class PolicyLoss:
    """Clipped policy gradient, KL to a reference, entropy bonus; which of them, says the algorithm section."""

    def __init__(self, config: AlgorithmConfig) -> None:
        self.config = config
        self.clip_low = config.eps_clip
        self.clip_high = config.eps_clip if config.eps_clip_high is None else config.eps_clip_high

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch.

        Args:
            logprobs: [R] float32 log-probs of the response tokens under the policy, with gradient.
            entropy: [R] float32 entropy of each predicted distribution; None where it is neither used nor logged.
            inputs: the other per-token quantities.
        Returns:
            scalar loss with gradient, and metrics without: sums that add up over micro-batches and ranks, except
            names ending in `_max`, of which the maximum is taken.
        Collective: none.
        """
        old = logprobs.detach() if inputs.logprobs_old is None else inputs.logprobs_old
        weights = inputs.weights
        policy_gradient, clipped = self._clipped_surrogate(logprobs, old, inputs.advantages)
        loss = pg_loss = (policy_gradient * weights).sum()
        metrics = {
            "train/pg_loss": pg_loss,
            "train/pg_clipfrac": (clipped * weights).sum(),
            "train/ppo_kl": ((old - logprobs) * weights).sum(),
            **_engine_gap(old, inputs),
        }
        if inputs.logprobs_ref is not None:
            estimate = kl_estimate(logprobs - inputs.logprobs_ref, self.config.kl_loss_type)
            metrics["train/kl_loss"] = kl = (estimate * weights).sum()
            loss = loss + self.config.kl_loss_coef * kl
        if entropy is not None:
            metrics["train/entropy_loss"] = bonus = (entropy * weights).sum()
            if self.config.entropy_coef:
                loss = loss - self.config.entropy_coef * bonus
        metrics["train/loss"] = loss
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _clipped_surrogate(self, logprobs: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        ratio = torch.exp(logprobs - old)
        plain = -ratio * advantages
        clipped = -ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages
        return torch.maximum(plain, clipped), (clipped > plain).to(plain.dtype)


def kl_estimate(delta: Tensor, kind: str) -> Tensor:
    """Per-token estimate of KL(policy || reference) from delta = logp - logp_ref, under the policy's samples.

    Args:
        delta: any shape.
        kind: k1 (delta), k2 (delta^2 / 2) or k3 (exp(-delta) - 1 + delta).
    Raises:
        ValueError: on another kind.
    Source: joschu.net/blog/kl-approx.html.
    """
    if kind == "k1":
        return delta
    if kind == "k2":
        return delta**2 / 2
    if kind == "k3":
        return torch.expm1(-delta) + delta
    raise ValueError(f"KL estimator {kind!r}: wanted k1, k2 or k3")


def token_weights(loss_masks: Sequence[Sequence[int]], aggregation: str) -> list[NDArray[np.float32]]:
    """Weights that make a sum over all tokens of a global batch the wanted mean.

    Args:
        loss_masks: one list of 0/1 per sample of the global batch.
        aggregation: token_mean (every token counts the same) or sample_mean (every sample counts the same).
    Returns:
        arrays as long as the masks, summing to 1; all 0 where no token is unmasked.
    """
    masks = [np.asarray(mask, np.float32) for mask in loss_masks]
    lengths = [int(mask.sum()) for mask in masks]
    if aggregation == "token_mean":
        denominators = [sum(lengths)] * len(lengths)
    elif aggregation == "sample_mean":
        num_samples = sum(length > 0 for length in lengths)
        denominators = [num_samples * length for length in lengths]
    else:
        raise ValueError(f"loss aggregation {aggregation!r}: wanted token_mean or sample_mean")
    return [mask / np.float32(max(1, denominator)) for mask, denominator in zip(masks, denominators, strict=True)]


def _engine_gap(old: Tensor, inputs: TokenInputs) -> Metrics:
    """How far engine and trainer disagree about the same tokens under the same weights."""
    gap = (old - inputs.logprobs_engine).detach().abs()
    counted = torch.where(inputs.weights > 0, gap, torch.zeros_like(gap))
    largest = counted.max() if counted.numel() else counted.new_zeros(())
    return {
        "train/train_rollout_logprob_abs_diff": (gap * inputs.weights).sum(),
        "train/train_rollout_logprob_abs_diff_max": largest,
    }
