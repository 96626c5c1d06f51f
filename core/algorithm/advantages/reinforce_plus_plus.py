"""The return of each token, whitened over the step: G_t = sum over s >= t of gamma^(s - t) r_s, then (G - mean) / std.

r_s = -kl_coef KL_s, and R more at the last token that counts.
Source: REINFORCE++, arXiv:2501.03262, section 3.
Legend: B samples of a step, T response tokens of a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.whiten import whiten


class ReinforcePlusPlus:
    """Returns whitened over all tokens of the step that count. Prompts may have one sample each."""

    min_group_size = 1
    per_token = True

    def __init__(self, kl_coef: float, gamma: float = 1.0) -> None:
        """Take the discount.

        Args:
            kl_coef: weight of the KL in the rewards.
            gamma: of the reward, which the last token that counts gets, per token before that.
        Raises:
            Wrong: it is not in (0, 1].
        """
        if not 0 < gamma <= 1:
            raise Wrong(f"gamma {gamma}", "0 < gamma <= 1", "correct algorithm.advantage_options")
        self.gamma, self.kl_coef = gamma, kl_coef

    def __call__(
        self,
        rewards: Tensor,
        groups: Tensor,  # noqa: ARG002  (every token has the same baseline)
        valid: Tensor,
        *,
        loss_mask: list[Tensor],
        kl: list[Tensor],
    ) -> list[Tensor]:
        """B tensors [T] float32."""
        known = torch.where(valid, rewards, torch.zeros_like(rewards)).double()
        returns = [reward * self._discounts(mask) for reward, mask in zip(known, loss_mask, strict=True)]
        if self.kl_coef > 0:
            returns = [one - self.kl_coef * self._to_come(cost) for one, cost in zip(returns, kl, strict=True)]
        return whiten(returns, loss_mask, valid)

    def _to_come(self, kl: Tensor) -> Tensor:
        """[T] float64: the KL from each token on, discounted."""
        found, ahead = torch.zeros(len(kl), dtype=torch.float64), 0.0
        for place in reversed(range(len(kl))):
            found[place] = ahead = float(kl[place]) + self.gamma * ahead
        return found

    def _discounts(self, mask: Tensor) -> Tensor:
        """[T] float64: gamma to the number of tokens up to the last that counts."""
        counted = mask.nonzero()
        last = int(counted[-1]) if len(counted) else 0
        steps_left = (last - torch.arange(len(mask))).clamp(min=0)
        return torch.full((len(mask),), self.gamma, dtype=torch.float64) ** steps_left
