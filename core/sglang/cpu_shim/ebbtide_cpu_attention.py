"""A plugin for SGLang (0.5.21) on a CPU: its `torch_native` attention decodes request by request; this, many at a time.

With 64 requests the loop took a quarter of the demo's rollout. Requests are grouped by length, to the next power of
two, and each group is one call over padded keys and values.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SHORTEST = 32  # tokens; shorter ones are padded to it
BACKEND = "sglang.srt.layers.attention.torch_native_backend.TorchNativeAttnBackend"


def register() -> None:
    """Called by SGLang in each of its processes."""
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        HookRegistry.register(f"{BACKEND}._run_sdpa_forward_decode", decode, HookType.AROUND)
        HookRegistry.register(f"{BACKEND}._run_sdpa_forward_extend", extend, HookType.AROUND)
    except Exception:
        traceback.print_exc()
        sys.exit("ebbtide: this SGLang has no torch_native attention as in 0.5.21")


def decode(
    original: Callable[..., Tensor], backend: Any, query: Tensor, output: Tensor, *where: Any, **how: Any
) -> Tensor:
    """Around `_run_sdpa_forward_decode`: one new token per request."""
    *cache, encoder_lens = where
    if plain(encoder_lens, how):
        return one_token_each(how["scaling"], query, output, *cache)
    return original(backend, query, output, *where, **how)


def extend(
    original: Callable[..., Tensor], backend: Any, query: Tensor, output: Tensor, *where: Any, **how: Any
) -> Tensor:
    """Around `_run_sdpa_forward_extend`: a prompt that is cached leaves one token to compute, as in `decode`."""
    *cache, _prefix_lens, extend_lens, encoder_lens = where
    if plain(encoder_lens, how) and how["causal"] and bool((extend_lens == 1).all()):
        return one_token_each(how["scaling"], query, output, *cache)
    return original(backend, query, output, *where, **how)


def plain(encoder_lens: Tensor | None, how: Mapping[str, Any]) -> bool:
    """Whether a token attends to all tokens up to its own; other models keep SGLang's loop."""
    return encoder_lens is None and how["sliding_window_size"] is None


def one_token_each(
    scaling: float | None,
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
    for rows, padded in by_length(seq_lens):
        slots = req_to_token[req_pool_indices[rows], :padded]
        output[rows] = attend(query[rows], k_cache[slots], v_cache[slots], seq_lens[rows], scaling)
    return output


def by_length(seq_lens: Tensor) -> list[tuple[Tensor, int]]:
    """Rows of similar lengths, and the length that they are padded to."""
    padded = (2 ** torch.ceil(torch.log2(seq_lens.clamp(min=SHORTEST).double()))).long()
    return [((padded == length).nonzero().squeeze(1), length) for length in sorted(set(padded.tolist()))]


def attend(query: Tensor, keys: Tensor, values: Tensor, seq_lens: Tensor, scaling: float | None) -> Tensor:
    """Attention of one query per request.

    Args:
        query: [B, H, D].
        keys, values: [B, L, G, D] and [B, L, G, E]; G divides H; beyond a request's length they are ignored.
        seq_lens: [B].
    Returns:
        [B, H, E].
    """
    batch, length, num_groups, _ = keys.shape
    hidden = torch.arange(length) >= seq_lens[:, None]
    mask = torch.zeros(batch, 1, 1, length, dtype=query.dtype).masked_fill_(hidden[:, None, None], float("-inf"))
    grouped = query.view(batch, num_groups, -1, query.shape[-1])  # heads that share keys stand where queries would
    attended = scaled_dot_product_attention(
        grouped, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask, scale=scaling
    )
    return attended.reshape(batch, -1, values.shape[-1])
