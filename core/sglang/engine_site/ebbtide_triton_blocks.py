"""A plugin for SGLang (0.5.16 and 0.5.21): with triton, a sample's keys are shared out by its length while decoding.

Several blocks of a GPU attend to parts of a sample's keys. SGLang's rule has as many as fill the GPU, and more where
samples differ in length: of 128 samples that grow alike, as those of a step do, each has one, which is up to 30 %
slower than eight from some hundred tokens on (`bench/decode_blocks.py`). So no sample has fewer than one for each
2**LOG_TOKENS of its tokens, up to BLOCKS. Without EBBTIDE_TRITON_BLOCKS=1 (`core.sglang.launch`) this does nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

COUNT = "sglang.srt.layers.attention.triton_backend.TritonAttnBackend.get_num_kv_splits"
LOG_TOKENS = 7
BLOCKS = 8


def register() -> None:
    """Hook into where blocks are counted."""
    if os.environ.get("EBBTIDE_TRITON_BLOCKS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(COUNT, count_by_length, HookType.AFTER)


def count_by_length(result: Any, back_end: Any, num_kv_splits: Tensor, seq_lens: Tensor) -> Any:
    """Raise what SGLang has counted; latent attention has a rule of its own, and so have samples that are the same in
    every batch.

    Args:
        num_kv_splits: [samples x places that each has] int32: blocks of each. seq_lens: [samples] tokens of each.
    """
    import torch  # here: not every process of an engine attends

    if back_end.use_mla or back_end.enable_deterministic:
        return result
    wanted = seq_lens + (2**LOG_TOKENS - 1)  # few kernels: this is done for each token
    wanted >>= LOG_TOKENS
    counted = num_kv_splits.view(len(seq_lens), -1)
    torch.maximum(counted, wanted.clamp_(max=min(BLOCKS, back_end.max_kv_splits))[:, None], out=counted)
    return result
