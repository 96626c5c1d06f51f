"""Sums over the samples of a prompt.

Legend: B samples of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """The rewards of a step by their prompts, in float64; samples without a reward take no part.

    Attributes:
        known: [B] rewards, 0 where there is none.
        valid: [B] bool: it has a reward.
        count: [B] valid samples of a sample's own group.
        mean: [B] mean of their rewards; 0 where there is none.
    """

    known: Tensor
    valid: Tensor
    count: Tensor
    mean: Tensor
    _inverse: Tensor
    _num_groups: int

    @classmethod
    def of(cls, rewards: Tensor, groups: Tensor, valid: Tensor) -> Groups:
        """The groups of a step.

        Args:
            rewards: [B]; entries that are not valid are ignored, NaN included.
            groups: [B] int64, the group of each sample; any order.
            valid: [B] bool.
        Raises:
            ValueError: if the shapes differ.
        """
        if not rewards.shape == groups.shape == valid.shape:
            raise ValueError(
                f"rewards {tuple(rewards.shape)}, groups {tuple(groups.shape)}, valid {tuple(valid.shape)}: "
                "wanted three vectors of one length"
            )
        known = torch.where(valid, rewards, torch.zeros_like(rewards)).double()
        ids, inverse = torch.unique(groups, return_inverse=True)
        count = _sums(valid.double(), inverse, len(ids))
        mean = _sums(known, inverse, len(ids)) / count.clamp(min=1)
        return cls(known, valid, count[inverse], mean[inverse], inverse, len(ids))

    def sums(self, values: Tensor) -> Tensor:
        """[B] sums over each sample's own group of [B] values."""
        return _sums(values, self._inverse, self._num_groups)[self._inverse]

    def centred(self) -> Tensor:
        """[B] rewards less their group's mean; 0 where there is none."""
        return torch.where(self.valid, self.known - self.mean, 0.0)


def _sums(values: Tensor, inverse: Tensor, num_groups: int) -> Tensor:
    return torch.zeros(num_groups, dtype=values.dtype).index_add_(0, inverse, values)
