"""Generalised advantages over what a critic expects: A_t = sum over l of (gamma lambd)^l delta_(t + l), whitened.

delta_t = r_t + gamma V_(t + 1) - V_t, with r_t = -kl_coef KL_t, and the reward of the response more at the last token
that counts, after which nothing is expected. The critic learns G_t = A_t + V_t, before the whitening. Tokens that do
not count are passed over: V_(t + 1) is that of the next one that does.
Source: GAE, arXiv:1506.02438, eq. 16; PPO, arXiv:1707.06347, eq. 11; the KL: InstructGPT, arXiv:2203.02155.
Left out: a value after responses that were cut off, which count as ended.
Legend: B samples of a step, T response tokens of a sample, W tokens that count in the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.whiten import whiten


class Gae:
    """Advantages over a critic's values, whitened over the step's tokens. Prompts may have one sample each."""

    min_group_size = 1
    per_token = True
    needs_values = True

    def __init__(self, kl_coef: float, gamma: float = 1.0, lambd: float = 1.0) -> None:
        """Take the discounts.

        Args:
            kl_coef: weight of the KL in the rewards.
            gamma: of rewards and values, per token.
            lambd: 1: the advantage is the return less the value; 0: it looks one token ahead.
        Raises:
            Wrong: gamma is not in (0, 1], or lambd not in [0, 1].
        """
        if not (0 < gamma <= 1 and 0 <= lambd <= 1):
            found = f"gamma {gamma} and lambd {lambd}"
            raise Wrong(found, "0 < gamma <= 1 and 0 <= lambd <= 1", "correct algorithm.advantage_options")
        self.gamma, self.lambd, self.kl_coef = gamma, lambd, kl_coef

    def __call__(
        self,
        rewards: Tensor,
        groups: Tensor,  # noqa: ARG002  (the critic is the baseline)
        valid: Tensor,
        *,
        loss_mask: list[Tensor],
        kl: list[Tensor],
        values: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Advantages and returns: B tensors [T] float32 each; 0 at tokens that do not count."""
        known = torch.where(valid, rewards, torch.zeros_like(rewards))
        raw = gae(known, values, loss_mask, self.gamma, self.lambd, [-self.kl_coef * one for one in kl])
        returns = [(a + v * m).float() for a, v, m in zip(raw, values, loss_mask, strict=True)]
        return whiten(raw, loss_mask, valid), returns


def gae(
    rewards: Tensor,
    values: Sequence[Tensor],
    loss_mask: Sequence[Tensor],
    gamma: float,
    lambd: float,
    token_rewards: Sequence[Tensor],
) -> list[Tensor]:
    """Generalised advantages, not whitened.

    Args:
        rewards: [B] of whole responses, finite.
        values: B tensors [T].
        loss_mask: B tensors [T] of 0 and 1.
        token_rewards: B tensors [T], beside the reward of the response.
    Returns:
        B tensors [T] float64; 0 at tokens that do not count.
    Collective: none.
    """
    counted = [mask > 0 for mask in loss_mask]
    lengths = torch.tensor([int(one.sum()) for one in counted])
    longest = int(lengths.max()) if len(lengths) else 0
    expected = _counted_first(values, counted, longest + 1)  # 0 after the last
    given = _counted_first(token_rewards, counted, longest)
    ahead, found = torch.zeros(len(lengths), dtype=torch.float64), torch.zeros_like(expected)
    for place in reversed(range(longest)):
        reward = given[:, place] + torch.where(lengths == place + 1, rewards.double(), 0.0)
        delta = reward + gamma * expected[:, place + 1] - expected[:, place]
        ahead = torch.where(place < lengths, delta + gamma * lambd * ahead, 0.0)
        found[:, place] = ahead
    return [_at(mask, row[: int(mask.sum())]) for mask, row in zip(counted, found, strict=True)]


def _counted_first(per_token: Sequence[Tensor], counted: Sequence[Tensor], width: int) -> Tensor:
    """[B, width] float64 with the values of the tokens that count, 0 behind them."""
    found = torch.zeros(len(per_token), width, dtype=torch.float64)
    for row, value, mask in zip(found, per_token, counted, strict=True):
        row[: int(mask.sum())] = value.double()[mask]
    return found


def _at(mask: Tensor, values: Tensor) -> Tensor:
    """[T] with the values where the mask is, else 0."""
    spread = torch.zeros(len(mask), dtype=torch.float64)
    spread[mask] = values
    return spread
