"""A plugin for SGLang (0.5.16 and 0.5.21): with triton, a sample's keys are shared out by its length while decoding.

Several blocks of a GPU attend to parts of a sample's keys. SGLang's rule fills the GPU with them, and takes more where
samples differ in length: of 128 samples that grow alike, as those of a step do, each has one, which is up to 30 %
slower than eight from some hundred tokens on (`bench/decode_blocks.py`). So no sample has fewer than one for each
2**LOG_TOKENS of its tokens, up to BLOCKS. More than BLOCKS fill a GPU where FEW samples are left, the last of a step,
and cost the many: blocks without keys are started, too. So `triton_attention_num_kv_splits` is for the few alone.
Without EBBTIDE_TRITON_BLOCKS=1 (`core.sglang.launch`) this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

COUNT = "sglang.srt.layers.attention.triton_backend.TritonAttnBackend.get_num_kv_splits"
ATTEND = "sglang.kernels.ops.attention.decode_attention.decode_attention_fwd"
LOG_TOKENS = 7
BLOCKS = 8
FEW = 4


def register() -> None:
    """Hook into where blocks are counted, and where they are started."""
    if os.environ.get("EBBTIDE_TRITON_BLOCKS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(COUNT, count_by_length, HookType.AFTER)
    HookRegistry.register(ATTEND, start_as_many, HookType.AROUND)


def most_blocks(samples: int, most: int) -> int:
    """The most of a sample, where `samples` are decoded together and buffers have room for `most`."""
    return most if samples <= FEW else min(BLOCKS, most)


def count_by_length(result: Any, back_end: Any, num_kv_splits: Tensor, seq_lens: Tensor) -> Any:
    """Raise what SGLang has counted, and lower it to what is started. Latent attention has a rule of its own.

    Args:
        num_kv_splits: [samples x places that each has] int32: blocks of each. seq_lens: [samples] tokens of each.
    """
    import torch  # here: not every process of an engine attends

    if back_end.use_mla:
        return result
    wanted = seq_lens + (2**LOG_TOKENS - 1)  # few kernels: this is done for each token
    wanted >>= LOG_TOKENS
    counted = num_kv_splits.view(len(seq_lens), -1)
    torch.maximum(counted, wanted.clamp_(max=BLOCKS)[:, None], out=counted)
    counted.clamp_(max=most_blocks(len(num_kv_splits), back_end.max_kv_splits))
    return result


def start_as_many(
    usual: Callable[..., Any], queries: Tensor, keys: Tensor, values: Tensor, *others: Any, **named: Any
) -> Any:
    """Attend, and start no more blocks of a sample than are counted for any: parts of the others stay unwritten.

    Args:
        queries: [samples, heads, channels]. keys, values: [places, groups, channels]; latent ones differ in width.
        others: SGLang's, among them the blocks' results [samples, heads, blocks, channels], and blocks of each sample.
    """
    if keys.shape[-1] != values.shape[-1]:
        return usual(queries, keys, values, *others, **named)
    out, begins, places, parts, sums, counted, most, *rest = others
    most = most_blocks(min(len(queries), len(counted)), most)
    return usual(queries, keys, values, out, begins, places, parts[:, :, :most], sums, counted, most, *rest, **named)
