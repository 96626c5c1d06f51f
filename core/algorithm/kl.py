"""Estimates of a KL divergence from log-probs of sampled tokens.

Source: joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.samples import TrainSample

MOST = 10.0  # a clamped estimate is at most this


def kl_estimate(delta: Tensor, kind: str) -> Tensor:
    """Per-token estimate of KL(policy || reference) from delta = logp - logp_ref, under the policy's samples.

    Args:
        delta: any shape.
        kind: k1 (delta), k2 (delta^2 / 2), k3 (exp(-delta) - 1 + delta) or low_var_kl (k3, at most 10).
    Raises:
        ValueError: on another kind.
    """
    if kind == "k1":
        return delta
    if kind == "k2":
        return delta**2 / 2
    if kind == "k3":
        return torch.expm1(-delta) + delta
    if kind == "low_var_kl":
        return (torch.expm1(-delta) + delta).clamp(max=MOST)
    raise ValueError(f"KL estimator {kind!r}: wanted k1, k2, k3 or low_var_kl")


def kl_in_rewards(samples: Sequence[TrainSample]) -> list[Tensor]:
    """The KL that rewards of tokens are lowered by, k1: logp_old - logp_ref; 0 at tokens that do not count.

    Args:
        samples: with log-probs of both.
    Returns:
        one tensor [T] float32 per sample, T its response tokens.
    Source: InstructGPT, arXiv:2203.02155, eq. 2, by tokens as in its reference arXiv:1909.08593.
    """
    return [
        torch.where(_counts(one), torch.tensor(one.logprobs_old) - torch.tensor(one.logprobs_ref), 0.0)
        for one in samples
    ]


def mean_kl(kl: Sequence[Tensor], samples: Sequence[TrainSample]) -> dict[str, float]:
    """The mean over the tokens that count, as a metric."""
    count = sum(int(_counts(one).sum()) for one in samples)
    return {"train/kl_in_reward": sum(float(one.double().sum()) for one in kl) / max(1, count)}


def _counts(sample: TrainSample) -> Tensor:
    """[T] bool."""
    return torch.tensor(sample.loss_mask, dtype=torch.float32) > 0
