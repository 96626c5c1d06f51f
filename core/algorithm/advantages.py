"""Advantages from rewards.

Source: GRPO, arXiv:2402.03300, section 4.1.2 (outcome supervision); without the division, Dr. GRPO, arXiv:2503.20783.
Legend: B samples of a step, T response tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

STD_EPSILON = 1e-6  # keeps a group of equal rewards at advantage 0 instead of 0/0


class Advantages(Protocol):
    """What stands in the door `algorithm.advantage_estimator`: a function, or a class whose objects are called so.

    `min_group_size`, an attribute and a plain number, says how many samples a group needs; left out: 1. Parameters
    of these names get, by name: lengths, [B] int64 numbers of response tokens; logprobs_engine, B tensors [T] float32;
    loss_mask, B tensors [T] float32 of 0 and 1.
    """

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor | Sequence[Tensor]:
        """Advantages of a step's samples. Every trainer rank calls with the same arguments and must get the same.

        Args:
            rewards: [B] float32, NaN where there is none.
            groups: [B] int64, the prompt of each sample; the samples of a prompt are adjacent.
            valid: [B] bool: it has a reward. What comes back for others is not read: they get 0.
        Returns:
            [B], or B tensors [T]: one number per response token. Finite.
        Collective: none.
        """
        ...


class Grpo:
    """The reward less its group's mean, over the group's standard deviation."""

    min_group_size = 2  # alone, every advantage is 0

    def __init__(self, grpo_std_normalization: bool) -> None:
        self.std_normalization = grpo_std_normalization

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
        """[B] float32: see `group_advantages`."""
        return group_advantages(rewards, groups, valid, self.std_normalization)


def group_advantages(rewards: Tensor, groups: Tensor, valid: Tensor, std_normalization: bool) -> Tensor:
    """Advantage of each sample over the valid samples of its group: (R - mean) / (std + 1e-6).

    Args:
        rewards: [B] float32; entries that are not valid are ignored, NaN included.
        groups: [B] int64, the group of each sample; any order.
        valid: [B] bool; a failed sample takes no part and gets advantage 0.
        std_normalization: divide by the group's sample standard deviation (n - 1 in the denominator).
    Returns:
        [B] float32, zero mean over the valid samples of each group; 0 where a group has one valid sample.
    Raises:
        ValueError: if the shapes differ.
    Collective: none.
    """
    if not rewards.shape == groups.shape == valid.shape:
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, groups {tuple(groups.shape)}, valid {tuple(valid.shape)}: "
            "wanted three vectors of one length"
        )
    known = torch.where(valid, rewards, torch.zeros_like(rewards)).double()
    ids, inverse = torch.unique(groups, return_inverse=True)
    count = _sum_by_group(valid.double(), inverse, len(ids))
    mean = _sum_by_group(known, inverse, len(ids)) / count.clamp(min=1)
    centred = torch.where(valid, known - mean[inverse], 0.0)
    if std_normalization:
        variance = _sum_by_group(centred**2, inverse, len(ids)) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + STD_EPSILON)[inverse]
    return centred.float()


def _sum_by_group(values: Tensor, inverse: Tensor, num_groups: int) -> Tensor:
    return torch.zeros(num_groups, dtype=values.dtype).index_add_(0, inverse, values)
