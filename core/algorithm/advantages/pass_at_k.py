"""The advantage of the best of k: a group's success is that of k of its samples, drawn without replacement.

Of n samples f fail. P = 1 - C(f, k) / C(n, k), s = sqrt(P (1 - P)). Right: (1 - P) / s. Wrong:
(1 - P - C(f - 1, k - 1) / C(n - 1, k - 1)) / s. Once f < k, P is 1 and nothing of the group is learnt any more.
Source: Pass@k training, arXiv:2508.10751, eq. 12 to 15 (the analytical form).
Legend: B samples of a step.
"""

from __future__ import annotations

from math import comb, sqrt

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.groups import Groups

RIGHT = 0.5  # a reward above it counts as success, as in `passrate`


class PassAtK:
    """Rewards what makes one of k samples right, so that hard prompts count and solved ones are left alone."""

    min_group_size = "k"  # of fewer, and alone, every advantage is 0
    per_token = False

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or k < 1:
            raise Wrong(f"k {k!r}", "a whole number of 1 or more", "correct algorithm.advantage_options")
        self.k = k

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
        """[B] float32; 0 in groups of fewer than k valid samples, and where the group fails or succeeds for sure."""
        by_group = Groups.of(rewards, groups, valid)
        right = valid & (by_group.known > RIGHT)
        failed = by_group.sums((valid & ~right).double())
        pairs = zip(by_group.count.tolist(), failed.tolist(), right.tolist(), strict=True)
        return torch.tensor([self._advantage(int(n), int(f), is_right) for n, f, is_right in pairs])

    def _advantage(self, num_samples: int, num_failed: int, is_right: bool) -> float:
        n, f, k = num_samples, num_failed, self.k
        fails = comb(f, k) / comb(n, k) if n >= k else 0.0
        if not 0 < fails < 1:
            return 0.0
        spread = sqrt(fails * (1 - fails))
        return fails / spread if is_right else (fails - comb(f - 1, k - 1) / comb(n - 1, k - 1)) / spread
