"""A plugin for SGLang (0.5.21) on a CPU: its `torch_native` attention decodes request by request; this, many at a time.

With 64 requests the loop took a quarter of the demo's rollout. Short requests are computed together, over padded keys
and values. A request's result does not depend on the others.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

PADDED = (0, 32, 64)  # tokens; beyond that, one request at a time is faster
BACKEND = "sglang.srt.layers.attention.torch_native_backend.TorchNativeAttnBackend"


def register() -> None:
    """Called by SGLang in each of its processes."""
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        HookRegistry.register(f"{BACKEND}._run_sdpa_forward_decode", decode, HookType.AROUND)
        HookRegistry.register(f"{BACKEND}.__init__", fill_with_short_requests, HookType.AFTER)
    except Exception:
        traceback.print_exc()
        sys.exit("ebbtide: this SGLang has no torch_native attention as in 0.5.21")


def fill_with_short_requests(result: Any, backend: Any, *_: Any, **__: Any) -> Any:
    """Name the length of requests that fill a batch up to another group's (`enable_dp_attention`), as others do."""
    backend.get_cpu_graph_seq_len_fill_value = lambda: 1
    return result


def decode(
    original: Callable[..., Tensor], backend: Any, query: Tensor, output: Tensor, *where: Any, **how: Any
) -> Tensor:
    """A wrapper of `_run_sdpa_forward_decode`."""
    *cache, encoder_lens = where
    if encoder_lens is None and how["sliding_window_size"] is None:  # a token attends to all before it
        return one_token_each(how["scaling"], query, output, *cache)
    return original(backend, query, output, *where, **how)


def one_token_each(
    scaling: float,
    query: Tensor,
    output: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
) -> Tensor:
    """Attention of the last token of each request, written to `output` [B, H, E], which is returned.

    Args:
        query: [B, H, D].
        k_cache, v_cache: [slots, G, D] and [slots, G, E].
        req_to_token: [pool, length] slot of each token of each request.
        req_pool_indices, seq_lens: [B] the request's row of that table; its length with the new token.
    """
    for low, high in pairwise(PADDED):
        rows = ((seq_lens > low) & (seq_lens <= high)).nonzero().squeeze(1)
        if len(rows):
            slots = req_to_token[req_pool_indices[rows], :high]
            output[rows] = attend(query[rows], k_cache[slots], v_cache[slots], seq_lens[rows], scaling)
    for row in (seq_lens > high).nonzero().squeeze(1).tolist():
        slots = req_to_token[req_pool_indices[row], : seq_lens[row]]
        keys, values = k_cache[slots].transpose(0, 1), v_cache[slots].transpose(0, 1)
        attended = scaled_dot_product_attention(query[row, :, None], keys, values, scale=scaling, enable_gqa=True)
        output[row] = attended[:, 0]
    return output


def attend(query: Tensor, keys: Tensor, values: Tensor, seq_lens: Tensor, scaling: float) -> Tensor:
    """Attention of one query per request.

    Written out, and summed along the dimension that is contiguous in memory: torch's own attention, and its sums over
    other dimensions, round a request differently from batch to batch, by the machine's threads and vector length.

    Args:
        query: [B, H, D].
        keys, values: [B, L, G, D] and [B, L, G, E]; G divides H; beyond a request's length they are ignored.
        seq_lens: [B].
    Returns:
        [B, H, E].
    """
    batch, length, num_groups, dim = keys.shape
    grouped = query.view(batch, 1, num_groups, -1, dim) * scaling
    scores = (grouped * keys[:, :, :, None]).sum(-1).permute(0, 2, 3, 1)  # [B, G, H / G, L]
    scores = scores.masked_fill((torch.arange(length) >= seq_lens[:, None])[:, None, None], float("-inf"))
    weights = scores.contiguous().softmax(-1)[:, :, :, None]
    by_channel = values.permute(0, 2, 3, 1).contiguous()[:, :, None]  # [B, G, 1, E, L]
    return (weights * by_channel).sum(-1).view(batch, -1, values.shape[-1])
