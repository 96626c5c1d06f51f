"""Estimates of a KL divergence from log-probs of sampled tokens.

Source: joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
