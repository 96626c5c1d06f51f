"""The attention kernels that come with torch on a GPU, over sequences laid end to end.

| kernel | can | on an H100, head dim 128, forward / backward |
|---|---|---|
| cuDNN's | causal sequences | about 600 / 440 TFLOP/s |
| FlashAttention-2 (arXiv:2307.08691) | queries that follow a prefix of keys, too | about 320 / 260 TFLOP/s |

A response behind a shared prompt is computed by the faster kernel as a whole sequence, the prompt's outputs thrown
away, unless the prompt is so long that this costs more than it gains. Both are called below torch's public functions,
which either pad or repeat key-value heads. bfloat16 and float16 only.
Legend: T row tokens, h query heads, g key-value heads, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.megatron.attention_plan import AttentionPlan

SM90 = (9, 0)  # older GPUs: cuDNN's kernel is not faster there
USE_CUDNN = True


def takes(query: Tensor) -> bool:
    """Whether the kernels here can do it."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def ragged(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """[T, h, d] of queries [T, h, d] and keys and values [T, g, d], as planned."""
    if USE_CUDNN and plan.whole is not None and torch.cuda.get_device_capability(query.device) >= SM90:
        return _whole_sequences(query, key, value, plan, scale)
    if not plan.is_plain:
        key, value = (rows.index_select(0, plan.packed_keys) for rows in (key, value))
    result: Tensor = Flash.apply(query, key, value, plan, scale)  # type: ignore[no-untyped-call]
    return result


def _whole_sequences(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    assert plan.whole is not None
    if not plan.is_plain:
        query, key, value = (rows.index_select(0, plan.packed_keys) for rows in (query, key, value))
    out: Tensor = Cudnn.apply(query, key, value, plan, scale)  # type: ignore[no-untyped-call]
    return out if plan.is_plain else out.index_select(0, plan.whole.own)


class Flash(torch.autograd.Function):
    """Causal from the bottom right: a segment's last query sees all of its keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        lengths = (plan.cu_queries, plan.cu_keys, plan.max_queries, plan.max_keys, 0.0, True)
        out, log_sum, rng, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, *lengths, False, scale=scale
        )
        ctx.save_for_backward(query, key, value, out, log_sum, rng, unused)
        ctx.lengths, ctx.scale = lengths, scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sum, rng, unused = ctx.saved_tensors
        found = torch.ops.aten._flash_attention_backward(
            gradients[0].contiguous(), query, key, value, out, log_sum, *ctx.lengths, rng, unused, scale=ctx.scale
        )
        return (*found, None, None)


class Cudnn(torch.autograd.Function):
    """Causal sequences of equal numbers of queries and keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        assert plan.whole is not None
        query, key, value = (rows.contiguous() for rows in (query, key, value))
        lengths = (plan.whole.cu_lengths, plan.whole.cu_lengths, plan.whole.max_length, plan.whole.max_length)
        found = torch.ops.aten._cudnn_attention_forward(
            query, key, value, None, *lengths, True, 0.0, True, False, scale=scale
        )
        out, log_sum, seed, offset = found[0], found[1], found[6], found[7]
        ctx.save_for_backward(query, key, value, out, log_sum, seed, offset)
        ctx.lengths, ctx.scale = lengths, scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sum, seed, offset = ctx.saved_tensors
        found = torch.ops.aten._cudnn_attention_backward(
            *(gradients[0].contiguous(), query, key, value, out, log_sum, seed, offset, None),
            *(*ctx.lengths, 0.0, True),
            scale=ctx.scale,
        )
        return (*found, None, None)
