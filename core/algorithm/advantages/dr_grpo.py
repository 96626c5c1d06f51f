"""The reward less its group's mean: R - mean.

Source: Dr. GRPO, arXiv:2503.20783, eq. 3, which also divides the loss by a constant length: loss_aggregation constant.
Legend: B samples of a step.
"""

from __future__ import annotations

from torch import Tensor

from core.algorithm.groups import Groups


class DrGrpo:
    """The reward less its group's mean; easy and hard prompts are not weighed up against each other."""

    min_group_size = 2  # alone, every advantage is 0
    per_token = False

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
        """[B] float32."""
        return Groups.of(rewards, groups, valid).centred().float()
