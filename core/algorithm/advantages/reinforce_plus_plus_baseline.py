"""The reward less its group's mean, whitened over the step: (R - mean_g), then (A - mean) / std.

Source: REINFORCE++-baseline, arXiv:2501.03262, section 3, whose KL is in the loss (kl_loss_coef).
Legend: B samples of a step, T response tokens of a sample.
"""

from __future__ import annotations

from torch import Tensor

from core.algorithm.groups import Groups
from core.algorithm.whiten import whiten


class ReinforcePlusPlusBaseline:
    """The group gives the baseline, the whole step the scale: a group of small spread is not blown up."""

    min_group_size = 2  # alone, every advantage is 0
    per_token = True

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor, *, loss_mask: list[Tensor]) -> list[Tensor]:
        """B tensors [T] float32."""
        centred = Groups.of(rewards, groups, valid).centred()
        spread = [value.expand(len(mask)) for value, mask in zip(centred, loss_mask, strict=True)]
        return whiten(spread, loss_mask, valid)
