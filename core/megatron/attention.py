"""Attention over a packed row, in the place of Megatron's core attention.

Legend: T row tokens, h query heads and g key-value heads of this tensor-parallel rank, d head dim; N, Q, K as in
`attention_plan`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.attention_plan import AttentionPlan, Block

varlen_attn: Callable[..., Tensor] | None = None
with suppress(ImportError, AttributeError):  # torch 2.10 and later; needs a GPU
    varlen_attn = importlib.import_module("torch.nn.attention.varlen").varlen_attn


class PlanCarrier(Protocol):
    """What travels through Megatron's layers under the name packed_seq_params."""

    attention: AttentionPlan


class RowAttention(torch.nn.Module):
    """Scaled dot-product attention as planned for the row. Dropout: none."""

    def __init__(self, config: Any, layer_number: int, **_: Any) -> None:
        super().__init__()
        self.layer_number = layer_number
        self.scale = config.kv_channels**-0.5

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
        rows = (query.squeeze(1), key.squeeze(1), value.squeeze(1))
        out = _varlen(*rows, plan) if _has_varlen(query) else _blockwise(*rows, plan, self.scale)
        return out.reshape(out.shape[0], 1, -1)


def _blockwise(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """Gather each block, attend, and put the tokens back in row order: [T, h, d]."""
    outputs = [_attend_block(query, key, value, block, scale).flatten(0, 1) for block in plan.blocks]
    return torch.cat(outputs).index_select(0, plan.order)


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


def _has_varlen(query: Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and varlen_attn is not None


def _varlen(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan) -> Tensor:
    """torch's own flash kernel for ragged batches: causal from the bottom right, hence the whole prefix is seen."""
    assert varlen_attn is not None
    repeat = query.shape[1] // key.shape[1]
    keys, values = (rows.index_select(0, plan.packed_keys).repeat_interleave(repeat, dim=1) for rows in (key, value))
    ragged = (plan.cu_queries, plan.cu_keys, plan.max_queries, plan.max_keys)
    # how to say "causal" changed between torch versions; the scale is the kernel's default, 1 / sqrt(d)
    has_flag = "is_causal" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if has_flag else {"window_size": (-1, 0)}
    return varlen_attn(query, keys, values, *ragged, **causal)
