"""Attention of queries behind other keys, in two calls of a kernel that knows no such thing: cuDNN's, through torch.

Of the keys before them all queries see all: a rectangle. Their own they see causally: a square. Each call gives outputs
and the logarithms of its sums of exponentials, by which the outputs become those of one softmax. Backward, each call
gets that one softmax's outputs and sums, as if the other's keys were among its own, and its gradients are right.
Source: FlashAttention-2, arXiv:2307.08691, section 3.1, and ring attention, arXiv:2310.01889, within one rank.
Legend: T row tokens, h query heads, g key-value heads, d head dim; of a call n pieces, L queries of one, B keys before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.megatron.attention.copies import copied, to_row, to_sequences
from core.megatron.attention.squares import Call, Squares


def in_two_parts(query: Tensor, key: Tensor, value: Tensor, squares: Squares, scale: float) -> Tensor:
    """[T, h, d] of queries [T, h, d] and all keys and values that the plan's places are among, [.., g, d]."""
    if not squares.is_row:
        query = to_sequences(query, squares.queries, squares.own)
    key, value = (copied(rows, squares.keys) for rows in (key, value))
    queries = torch.split(query, [call.number * call.length for call in squares.calls])
    sizes = [call.number * (call.before + call.length) for call in squares.calls]
    parts = zip(queries, torch.split(key, sizes), torch.split(value, sizes), squares.calls, strict=True)
    out = torch.cat([_TwoParts.apply(*part, scale) for part in parts])  # type: ignore[no-untyped-call]
    return out if squares.is_row else to_row(out, squares.own)


class _TwoParts(torch.autograd.Function):
    """The pieces of one call: [n × L, h, d] of queries [n × L, h, d], keys and values [n × (B + L), g, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: Call, scale: float) -> Tensor:
        q, keys, values = (_by_heads(rows, call) for rows in (query, key, value))
        found = [
            kernel_forward(q, keys[:, :, seen], values[:, :, seen], causal=causal, scale=scale)
            for seen, causal in _parts(call)
        ]
        out: Tensor
        out, log_sum = found[0][:2] if len(found) == 1 else together(*found[0][:2], *found[1][:2])
        ctx.save_for_backward(query, key, value, out, log_sum)
        ctx.call, ctx.scale, ctx.notes = call, scale, [note for _, _, note in found]
        return out.transpose(1, 2).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *rows, out, log_sum = ctx.saved_tensors
        q, keys, values, incoming = (_by_heads(one, ctx.call) for one in (*rows, gradients[0]))
        found = []
        for (seen, causal), note in zip(_parts(ctx.call), ctx.notes, strict=True):
            tensors = q, keys[:, :, seen], values[:, :, seen], out, log_sum
            found.append(kernel_backward(incoming, *tensors, note, causal=causal, scale=ctx.scale))
        of_queries, of_keys, of_values = zip(*found, strict=True)
        of_query = of_queries[0] if len(found) == 1 else of_queries[0].add_(of_queries[1])
        others = (
            torch.cat([part.transpose(1, 2) for part in parts], 1).flatten(0, 1) for parts in (of_keys, of_values)
        )
        return of_query.transpose(1, 2).flatten(0, 1), *others, None, None


def _parts(call: Call) -> list[tuple[slice, bool]]:
    """Which of a piece's keys each part has, in their order, and whether its queries see them causally."""
    square = [(slice(call.before, None), True)]
    return [(slice(0, call.before), False), *square] if call.before else square


def _by_heads(rows: Tensor, call: Call) -> Tensor:
    """[n × L, h, d] as [n, h, L, d]."""
    return rows.contiguous().view(call.number, -1, *rows.shape[1:]).transpose(1, 2)


def together(out: Tensor, log_sum: Tensor, other: Tensor, other_sum: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax's outputs [n, h, L, d] and logarithms of sums [n, h, L, 1] of those over two sets of keys."""
    total = torch.logaddexp(log_sum, other_sum)
    mixed = out * (log_sum - total).exp() + other * (other_sum - total).exp()
    return mixed.to(out.dtype), total


def kernel_forward(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float) -> tuple[Any, ...]:
    """cuDNN's kernel: outputs [n, h, L, d], logarithms of sums [n, h, L, 1], and what its backward pass wants."""
    found = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query, key, value, None, True, 0.0, causal, False, scale=scale
    )
    out, log_sum, cu_queries, cu_keys, max_queries, max_keys, seed, offset, _ = found
    return out, log_sum, (seed, offset, None, cu_queries, cu_keys, max_queries, max_keys, 0.0)


def kernel_backward(
    incoming: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    note: tuple[Any, ...],
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        incoming, query, key, value, out, log_sum, *note, causal, scale=scale
    )
    return found
