"""The clipped policy gradient, with a KL to a reference and an entropy bonus.

Source: clipped surrogate, PPO, arXiv:1707.06347, eq. 7; KL estimators, joschu.net/blog/kl-approx.html.
Left out: dual clip, sequence-level ratios, importance correction for the engine-trainer mismatch.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.algorithm.loss import Metrics, TokenInputs
from core.samples import TrainSample


class ClippedLoss:
    """Clipped surrogate + kl_loss_coef * KL - entropy_coef * entropy, each a weighted sum over tokens."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    means = frozenset({"train/ppo_kl", "train/entropy_loss", "train/train_rollout_logprob_abs_diff"})

    def __init__(
        self,
        eps_clip: float,
        eps_clip_high: float | None,
        kl_loss_coef: float,
        kl_loss_type: str,
        entropy_coef: float,
    ) -> None:
        self.clip_low = eps_clip
        self.clip_high = eps_clip if eps_clip_high is None else eps_clip_high
        self.kl_loss_coef, self.kl_loss_type = kl_loss_coef, kl_loss_type
        self.entropy_coef = entropy_coef

    def teaches(self, sample: TrainSample) -> bool:
        """Everything does if KL or entropy are in the loss; else what has an advantage, and a token that counts."""
        if self.kl_loss_coef > 0 or self.entropy_coef > 0:
            return True
        return sample.has_advantage and any(sample.loss_mask)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `Loss`. Without an entropy there is neither its metric nor a bonus.

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
            estimate = kl_estimate(logprobs - inputs.logprobs_ref, self.kl_loss_type)
            metrics["train/kl_loss"] = kl = (estimate * weights).sum()
            loss = loss + self.kl_loss_coef * kl
        if entropy is not None:
            metrics["train/entropy_loss"] = bonus = (entropy * weights).sum()
            if self.entropy_coef:
                loss = loss - self.entropy_coef * bonus
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


def _engine_gap(old: Tensor, inputs: TokenInputs) -> Metrics:
    """How far engine and trainer disagree about the same tokens under the same weights."""
    gap = (old - inputs.logprobs_engine).detach().abs()
    counted = torch.where(inputs.weights > 0, gap, torch.zeros_like(gap))
    largest = counted.max() if counted.numel() else counted.new_zeros(())
    return {
        "train/train_rollout_logprob_abs_diff": (gap * inputs.weights).sum(),
        "train/train_rollout_logprob_abs_diff_max": largest,
    }
