"""The attention kernels that come with torch on a GPU, over sequences laid end to end.

| kernel | can | on an H100, head dim 128, forward / backward |
|---|---|---|
| cuDNN's | causal sequences | about 600 / 440 TFLOP/s |
| FlashAttention-2 (arXiv:2307.08691) | queries that follow a prefix of keys, too | about 320 / 260 TFLOP/s |

Long sequences go to cuDNN, those of a row with the same length in one dense call. It prepares a kernel for every new
shape (0.1 s), hence they are padded to multiples of 256. A long response behind a shared prompt is computed as a whole
sequence, the prompt's outputs thrown away, if the prompt is short beside it; a context-parallel rank's long pieces in
two calls, of the keys before them and of their own (`two_parts`). Everything else goes to FlashAttention,
below torch's public function, which asks for key-value heads to be repeated; so do layers with a window or with sinks,
which cuDNN's call does not know. Sinks take their share of what the kernel gives, by the sum that it gives beside it;
its backward pass is right for them with the sum that they are part of. (cuDNN's own ragged form, as torch 2.11
calls it, prepares its kernel anew in every call and gave infinities.) bfloat16 and float16 only.
Legend: T row tokens, K keys of all segments, h query heads, g key-value heads, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.megatron.attention.copies import copied, to_row, to_sequences
from core.megatron.attention.plan import AttentionPlan, Whole
from core.megatron.attention.two_parts import in_two_parts

SM90 = (9, 0)  # older GPUs: cuDNN's kernel is not faster there
USE_CUDNN = True
CUDNN_WIDTH = 128  # of a head: for wider ones it has no backward pass on all GPUs that we have


def takes(query: Tensor) -> bool:
    """Whether the kernels here can do it."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def ragged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """[T, h, v] of queries [T, h, d], keys [T, g, d] and values [T, g, v], as planned: see `packed.attend`.

    Values of another width than keys are padded, for both kernels want them alike.
    """
    width = value.shape[-1]
    if width != key.shape[-1]:
        value = functional.pad(value, (0, key.shape[-1] - width))
        return ragged(query, key, value, plan, scale, window, sinks)[..., :width]
    if window is None and sinks is None and _cudnn_takes(query):
        if plan.whole is not None:
            return _whole_sequences(query, key, value, plan, plan.whole, scale)
        if plan.squares is not None:
            return in_two_parts(query, key, value, plan.squares, scale)
    if not plan.is_plain:
        key, value = (copied(rows, plan.ragged.keys) for rows in (key, value))
    result: Tensor = Flash.apply(query, key, value, sinks, plan, scale, window)  # type: ignore[no-untyped-call]
    return result


def _cudnn_takes(query: Tensor) -> bool:
    """Whether cuDNN's kernel can do it, and is faster."""
    if not USE_CUDNN or query.shape[-1] > CUDNN_WIDTH:
        return False
    return torch.cuda.get_device_capability(query.device) >= SM90


def _whole_sequences(
    query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, whole: Whole, scale: float
) -> Tensor:
    """One dense causal call for the sequences of each length; they are long, so that even one fills the GPU."""
    if not whole.is_row:
        query = to_sequences(
            query, whole.copies.rows, whole.own
        )  # a prefix's queries come to nothing, so only its own row learns
        key, value = (
            to_sequences(rows, whole.copies.rows, whole.own) if plan.is_plain else copied(rows, whole.copies)
            for rows in (key, value)
        )
    tokens = [number * length for number, length in whole.calls]
    parts = zip(whole.calls, *(torch.split(rows, tokens) for rows in (query, key, value)), strict=True)
    out = torch.cat([_dense(q, k, v, number, scale) for (number, _), q, k, v in parts])
    return out if whole.is_row else to_row(out, whole.own)


def _dense(query: Tensor, key: Tensor, value: Tensor, number: int, scale: float) -> Tensor:
    """[number * L, h, d] of `number` sequences of L tokens, end to end."""
    q, k, v = (rows.contiguous().view(number, -1, *rows.shape[1:]).transpose(1, 2) for rows in (query, key, value))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


class Flash(torch.autograd.Function):
    """Causal from the bottom right: a segment's last query sees all of its keys, or the last of them."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        plan: AttentionPlan,
        scale: float,
        window: int | None,
    ) -> Tensor:
        row = plan.ragged
        lengths = (row.cu_queries, row.cu_keys, row.max_queries, row.max_keys, 0.0, True)
        how = {"scale": scale, **({} if window is None else {"window_size_left": window - 1, "window_size_right": 0})}
        out, log_sum, rng, unused, _ = flash_forward(query, key, value, *lengths, False, **how)
        if sinks is not None:
            out, log_sum = beside_sinks(out, log_sum, sinks)
        ctx.save_for_backward(query, key, value, sinks, out, log_sum, rng, unused)
        ctx.lengths, ctx.how = lengths, how
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks, out, log_sum, rng, unused = ctx.saved_tensors
        incoming = gradients[0].contiguous()
        found = flash_backward(incoming, query, key, value, out, log_sum, *ctx.lengths, rng, unused, **ctx.how)
        for_sinks = None if sinks is None else sinks_gradient(incoming, out, log_sum, sinks)
        return (*found, for_sinks, None, None, None)


def flash_forward(*arguments: Any, **how: Any) -> Any:
    """torch's kernel: [T, h, d], [h, T] logarithms of sums of exponentials, and what its backward pass wants."""
    return torch.ops.aten._flash_attention_forward(*arguments, **how)


def flash_backward(*arguments: Any, **how: Any) -> Any:
    """Gradients of queries, keys and values."""
    return torch.ops.aten._flash_attention_backward(*arguments, **how)


def beside_sinks(out: Tensor, log_sum: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of [T, h, d] where [h] sinks take their share, and [h, T] the sums that they are part of."""
    total = torch.logaddexp(log_sum, sinks.to(log_sum.dtype)[:, None])
    share = (log_sum - total).exp().t()[..., None]
    return (out * share).to(out.dtype), total


def sinks_gradient(incoming: Tensor, out: Tensor, total: Tensor, sinks: Tensor) -> Tensor:
    """[h]: a sink's share of a query, whose value is 0, takes from what the query gives."""
    given = torch.linalg.vecdot(incoming.to(total.dtype), out.to(total.dtype)).t()  # [h, T]
    share = (sinks.to(total.dtype)[:, None] - total).exp()
    taken: Tensor = (share * given).sum(1)
    return -taken.to(sinks.dtype)
