"""No advantage: every sample counts the same, 1. For samples that rows give, which nobody scores.

Legend: B samples of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NoAdvantage:
    """A weight of 1 for every sample."""

    per_token = False
    needs_reward = False

    def __call__(self, _rewards: Tensor, _groups: Tensor, valid: Tensor) -> Tensor:
        """[B] float32 ones; a sample that takes no part gets 0 from the caller."""
        return torch.ones(len(valid))
