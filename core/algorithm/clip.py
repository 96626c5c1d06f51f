"""A policy ratio held to a range.

Source: PPO, arXiv:1707.06347, eq. 7; clip-higher: DAPO, arXiv:2503.14476, eq. 10; dual clip: arXiv:1912.09729, eq. 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """The range [1 - low, 1 + high] of a ratio; with `dual` c a token of negative advantage A costs at most -c A."""

    low: float
    high: float
    dual: float | None = None

    @classmethod
    def of(cls, eps_clip: float, eps_clip_high: float | None, eps_clip_c: float | None = None) -> Clip:
        """The range that the run file's keys describe."""
        return cls(eps_clip, eps_clip if eps_clip_high is None else eps_clip_high, eps_clip_c)

    def bound(self, ratio: Tensor) -> Tensor:
        """The ratio within its range."""
        return ratio.clamp(1 - self.low, 1 + self.high)

    def surrogate(self, ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """max(-r A, -clip(r) A), and where the clip is what counts; likewise for the bound of the dual clip."""
        plain = -ratio * advantages
        clipped = -self.bound(ratio) * advantages
        loss, binds = torch.maximum(plain, clipped), clipped > plain
        if self.dual is None:
            return loss, binds
        most = torch.where(advantages < 0, -self.dual * advantages, torch.inf)
        return torch.minimum(loss, most), binds | (most < loss)
