"""The attention kernels that come with torch on a GPU, over sequences laid end to end.

| kernel | can | on an H100, head dim 128, forward / backward |
|---|---|---|
| cuDNN's | causal sequences | about 600 / 440 TFLOP/s |
| FlashAttention-2 (arXiv:2307.08691) | queries that follow a prefix of keys, too | about 320 / 260 TFLOP/s |

Long sequences go to cuDNN, one dense call each. It prepares a kernel for every new length (0.1 s), hence they are
padded to multiples of 256. A long response behind a shared prompt is computed as a whole sequence, the prompt's outputs
thrown away, if the prompt is short beside it. Everything else goes to FlashAttention, below torch's public function,
which asks for key-value heads to be repeated. (cuDNN's own ragged form, as torch 2.11 calls it, prepares its kernel
anew in every call and gave infinities.) bfloat16 and float16 only.
Legend: T row tokens, K keys of all segments, h query heads, g key-value heads, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.megatron.attention_plan import AttentionPlan, Ragged, Whole

SM90 = (9, 0)  # older GPUs: cuDNN's kernel is not faster there
USE_CUDNN = True


def takes(query: Tensor) -> bool:
    """Whether the kernels here can do it."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def ragged(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """[T, h, d] of queries [T, h, d] and keys and values [T, g, d], as planned."""
    if USE_CUDNN and plan.whole is not None and torch.cuda.get_device_capability(query.device) >= SM90:
        return _whole_sequences(query, key, value, plan, plan.whole, scale)
    if not plan.is_plain:
        key, value = (_packed(rows, plan.ragged) for rows in (key, value))
    result: Tensor = Flash.apply(query, key, value, plan, scale)  # type: ignore[no-untyped-call]
    return result


def _packed(rows: Tensor, ragged: Ragged) -> Tensor:
    packed: Tensor = _Pack.apply(rows, ragged)  # type: ignore[no-untyped-call]
    return packed


class _Pack(torch.autograd.Function):
    """[T, g, d] to [K, g, d]: a prefix is there once for each of its segments.

    index_select's own gradient adds up in bfloat16 and in no fixed order; this one in float32 and always alike.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ragged: Ragged) -> Tensor:
        ctx.ragged = ragged
        return rows.index_select(0, ragged.packed_keys)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (incoming,) = gradients
        copies, first = ctx.ragged.copies, ctx.ragged.first_copy
        total = functional.embedding_bag(copies, incoming.flatten(1), first, mode="sum")
        return total[:-1].view(-1, *incoming.shape[1:]), None  # the last bag is what lies behind all keys that count


def _whole_sequences(
    query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, whole: Whole, scale: float
) -> Tensor:
    """One dense causal call for each sequence; it is long, so that one fills the GPU."""
    if len(whole.own) != len(whole.rows):
        query = _gather(query, whole, once=True)  # a prefix's queries come to nothing, so only its own row learns
        key, value = (_gather(rows, whole, once=plan.is_plain) for rows in (key, value))
    q, k, v = (torch.split(rows, list(whole.lengths)) for rows in (query, key, value))
    out = torch.cat([_dense(*part, scale) for part in zip(q, k, v, strict=True)])
    return out if len(whole.own) == len(whole.rows) else out.index_select(0, whole.own)


def _dense(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """[L, h, d] of one sequence."""
    q, k, v = (rows.contiguous()[None].transpose(1, 2) for rows in (query, key, value))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def _gather(rows: Tensor, whole: Whole, once: bool) -> Tensor:
    gathered: Tensor = _Gather.apply(rows, whole, once)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Rows in the order of the whole sequences. `once`: each row's gradient comes from its own place alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, whole: Whole, once: bool) -> Tensor:
        ctx.whole, ctx.once, ctx.num_rows = whole, once, rows.shape[0]
        return rows.index_select(0, whole.rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (incoming,) = gradients
        if ctx.once:
            return incoming.index_select(0, ctx.whole.own), None, None
        total = incoming.new_zeros(ctx.num_rows, *incoming.shape[1:])
        return total.index_add_(0, ctx.whole.rows, incoming), None, None


class Flash(torch.autograd.Function):
    """Causal from the bottom right: a segment's last query sees all of its keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        row = plan.ragged
        lengths = (row.cu_queries, row.cu_keys, row.max_queries, row.max_keys, 0.0, True)
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
