"""RMSNorm for Megatron's local layer spec; unlike Megatron's own wrapper it works under sequence parallel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.layers.made_again import made_again


class RMSNorm(torch.nn.Module):
    """Root mean square norm over the last dimension (arXiv:1910.07467), weight in the config's parameter dtype."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        device = torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=device))
        # tells finalize_model_grads to sum this gradient over the ranks that hold other parts of the sequence
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        return made_again(self._normed, hidden, self.weight)

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self.eps)


class CentredNorm(RMSNorm):
    """The norm with weights that are what is added to 1 (Qwen3-Next, after Gemma), in float32."""

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        normed = functional.rms_norm(hidden.float(), weight.shape, 1 + weight.float(), self.eps)
        return normed.to(hidden.dtype)


class HeadsNorm(RMSNorm):
    """The norm over all of a token's heads at once, all of which are on this rank (MiniMax-M2)."""

    def __init__(self, config: Any, hidden_size: int, heads: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(config, heads * hidden_size, eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, 1, h, d], of [T, 1, h, d]."""
        return super().forward(hidden.flatten(-2)).view_as(hidden)
