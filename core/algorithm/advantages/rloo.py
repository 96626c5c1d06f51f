"""The reward less the mean of the group's other samples: R_i - sum over j != i of R_j / (n - 1).

Source: RLOO, arXiv:2402.14740, eq. 8. Equal to n / (n - 1) x (R_i - mean), which is how it is computed.
Legend: B samples of a step.
"""

from __future__ import annotations

from torch import Tensor

from core.algorithm.groups import Groups


class Rloo:
    """The reward less what the other samples of its prompt got."""

    min_group_size = 2  # there have to be others
    per_token = False

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
        """[B] float32; 0 where no other sample of the group has a reward."""
        by_group = Groups.of(rewards, groups, valid)
        return (by_group.centred() * by_group.count / (by_group.count - 1).clamp(min=1)).float()
