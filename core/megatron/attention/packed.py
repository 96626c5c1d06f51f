"""Attention over a packed row, in the place of Megatron's core attention.

Legend: T row tokens, h query heads and g key-value heads of this tensor-parallel rank, d head dim; N, Q, K as in
`attention_blocks`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.attention.blocks import Block
from core.megatron.attention.on_gpu import ragged, takes
from core.megatron.attention.over_ranks import gathered
from core.megatron.attention.plan import AttentionPlan
from core.megatron.layers.rotary import rotate


class PlanCarrier(Protocol):
    """What travels through Megatron's layers under the name packed_seq_params."""

    attention: AttentionPlan
    rotation: tuple[Tensor, Tensor] | None


class RowAttention(torch.nn.Module):
    """Rotation of queries and keys, then scaled dot-product attention as planned for the row. Dropout: none."""

    def __init__(self, config: Any, layer_number: int, **_: Any) -> None:
        super().__init__()
        self.layer_number = layer_number
        self.scale = config.kv_channels**-0.5
        self.interleaved = config.rotary_interleaved

    def forward(
        self,
        query: Tensor,  # [T, 1, h, d]
        key: Tensor,  # [T, 1, g, d]
        value: Tensor,  # [T, 1, g, d]
        *_unused: Any,  # Megatron's attention mask
        packed_seq_params: PlanCarrier,
        **_: Any,
    ) -> Tensor:
        """[T, 1, h * d]"""
        plan = packed_seq_params.attention
        assert packed_seq_params.rotation is not None, "the model has not prepared this row"
        cos, sin = packed_seq_params.rotation
        query, key = (rotate(heads.squeeze(1), cos, sin, self.interleaved) for heads in (query, key))
        out = attend(query, key, value.squeeze(1), plan, self.scale)
        return out.reshape(out.shape[0], 1, -1)


def attend(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """[T, h, v] of queries [T, h, d], keys [T, g, d] and values [T, g, v], as planned for the row.

    Collective: the context-parallel ranks, if the plan is of a part of a row.
    """
    if plan.num_keys is not None:
        key, value = gathered(key, value)
    return (ragged if takes(query) else _blockwise)(query, key, value, plan, scale)


def _blockwise(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """Gather each block, attend, and put the tokens back in row order: [T, h, d]."""
    outputs = [_attend_block(query, key, value, block, scale).flatten(0, 1) for block in plan.blocks.blocks]
    return torch.cat(outputs).index_select(0, plan.blocks.order)


def _attend_block(query: Tensor, key: Tensor, value: Tensor, block: Block, scale: float) -> Tensor:
    """[N, Q, h, d]"""
    out = functional.scaled_dot_product_attention(
        _gather(query, block.queries),
        _gather(key, block.keys),
        _gather(value, block.keys),
        attn_mask=block.mask,
        is_causal=block.mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """[T, h, d] rows at [N, Q] positions, as [N, h, Q, d]."""
    return rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:]).transpose(1, 2)
