"""What the built-in policy losses share: their sums over tokens, and the KL and entropy that go beside them.

Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.algorithm.kl import kl_estimate
from core.algorithm.loss import Metrics, TokenInputs
from core.samples import TrainSample

MEANS = frozenset({"train/ppo_kl", "train/entropy_loss", "train/train_rollout_logprob_abs_diff"})


@dataclass(frozen=True)
class Penalties:
    """+ kl_loss_coef * KL - entropy_coef * entropy, each a weighted sum over tokens.

    With `kl_unbiased` the KL of each token is multiplied by the policy's ratio to the old one, whose gradient counts:
    so its gradient is that of the KL itself (DeepSeek-V3.2, arXiv:2512.02556, section 3.1).
    """

    kl_loss_coef: float
    kl_loss_type: str
    kl_unbiased: bool
    entropy_coef: float

    def teaches(self, sample: TrainSample) -> bool:
        """Everything does if KL or entropy are in the loss; else what has an advantage, and a token that counts."""
        if self.kl_loss_coef > 0 or self.entropy_coef > 0:
            return True
        return sample.has_advantage and any(sample.loss_mask)

    def kl(self, logprobs: Tensor, old: Tensor, reference: Tensor) -> Tensor:
        """[R] estimates of the KL to the reference."""
        estimate = kl_estimate(logprobs - reference, self.kl_loss_type)
        return torch.exp(logprobs - old) * estimate if self.kl_unbiased else estimate


@dataclass(frozen=True)
class Surrogate:
    """What a policy loss makes of each token: [R] losses, and whether the clip was what counted."""

    per_token: Tensor
    clipped: Tensor


def old_of(logprobs: Tensor, inputs: TokenInputs) -> Tensor:
    """[R] log-probs of the policy that the batch counts as sampled from."""
    return logprobs.detach() if inputs.logprobs_old is None else inputs.logprobs_old


def policy_loss(
    surrogate: Surrogate, penalties: Penalties, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs
) -> tuple[Tensor, Metrics]:
    """Loss and metrics of one micro-batch: see `Loss`. Without an entropy there is neither its metric nor a bonus."""
    old, weights = old_of(logprobs, inputs), inputs.weights
    loss = pg_loss = (surrogate.per_token * weights).sum()
    metrics = {
        "train/pg_loss": pg_loss,
        "train/pg_clipfrac": (surrogate.clipped.to(weights.dtype) * weights).sum(),
        "train/ppo_kl": ((old - logprobs) * weights).sum(),
        **_engine_gap(old, inputs),
    }
    if inputs.logprobs_ref is not None:
        metrics["train/kl_loss"] = kl = (penalties.kl(logprobs, old, inputs.logprobs_ref) * weights).sum()
        loss = loss + penalties.kl_loss_coef * kl
    if entropy is not None:
        metrics["train/entropy_loss"] = bonus = (entropy * weights).sum()
        if penalties.entropy_coef:
            loss = loss - penalties.entropy_coef * bonus
    metrics["train/loss"] = loss
    return loss, {name: value.detach() for name, value in metrics.items()}


def _engine_gap(old: Tensor, inputs: TokenInputs) -> Metrics:
    """How far engine and trainer disagree about the same tokens under the same weights."""
    gap = (old - inputs.logprobs_engine).detach().abs()
    counted = torch.where(inputs.weights > 0, gap, torch.zeros_like(gap))
    largest = counted.max() if counted.numel() else counted.new_zeros(())
    return {
        "train/train_rollout_logprob_abs_diff": (gap * inputs.weights).sum(),
        "train/train_rollout_logprob_abs_diff_max": largest,
    }
