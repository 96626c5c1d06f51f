"""Advantages from rewards.

Source: GRPO, arXiv:2402.03300, section 4.1.2 (outcome supervision); without the division, Dr. GRPO, arXiv:2503.20783.
Legend: B samples of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

STD_EPSILON = 1e-6  # keeps a group of equal rewards at advantage 0 instead of 0/0


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
