"""Attention and feed-forward with a norm behind them, ahead of the sum with what came in (GLM-4)."""

from __future__ import annotations

from typing import Any

from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor

from core.megatron.layers.mlp import GatedMLP
from core.megatron.layers.norm import RMSNorm


class PostNorm(RMSNorm):
    """A norm that writes itself into checkpoints: Megatron's feed-forward asks each of its parts to."""

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> Any:
        """The whole weight, the same on all tensor-parallel ranks."""
        del metadata  # a group of it, given alone, would make all tensor-parallel ranks writers of the same weight
        weights = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(weights, prefix, {}, sharded_offsets)


class NormedAttention(SelfAttention):  # type: ignore[misc]
    """Megatron's self-attention, then a norm. Its output has no bias."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.post_layernorm = PostNorm(config, config.hidden_size, config.layernorm_epsilon)

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, None]:
        """[T, 1, H], and no bias."""
        output, _ = super().forward(*arguments, **options)
        return self.post_layernorm(output), None


class NormedMLP(GatedMLP):
    """The gated feed-forward, then a norm."""

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.post_layernorm = PostNorm(config, config.hidden_size, config.layernorm_epsilon)

    def forward(self, hidden_states: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """[T, 1, H], and no bias."""
        output, bias = super().forward(hidden_states, **options)
        return self.post_layernorm(output), bias
