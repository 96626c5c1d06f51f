"""The reward within its group, over the group's spread: (R - mean) / (std + 1e-6).

Source: GRPO, arXiv:2402.03300, section 4.1.2 (outcome supervision). Differs: std has n - 1 in its denominator.
Legend: B samples of a step.
"""

from __future__ import annotations

from torch import Tensor

from core.algorithm.groups import Groups

STD_EPSILON = 1e-6  # keeps a group of equal rewards at advantage 0 instead of 0/0


class Grpo:
    """The reward less its group's mean, over the group's standard deviation."""

    min_group_size = 2  # alone, every advantage is 0
    per_token = False

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
    by_group = Groups.of(rewards, groups, valid)
    centred = by_group.centred()
    if std_normalization:
        variance = by_group.sums(centred**2) / (by_group.count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + STD_EPSILON)
    return centred.float()
