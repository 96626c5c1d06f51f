"""A plugin for SGLang (0.5.16 and 0.5.21): with triton, a window has all its keys while decoding, as in a prefill.

A layer's window of W tokens, itself among them, is W - 1 to SGLang, the distance of the farthest. Its triton kernel for
prompts lets a token see that many before it; while decoding its back end gathers W - 1 keys in all, one too few
(pull request 32087 of SGLang says so too), and the log-probs are not those of the trainer. FlashAttention is right.
The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process. Without
EBBTIDE_TRITON_WINDOWS=1 (`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

MODULE = "sglang.srt.layers.attention.triton_backend"
BEGIN = f"{MODULE}.TritonAttnBackend.__init__"
MENDED = "sliding_window_size + 1"  # in SGLang's own gathering, once it is right


def register() -> None:
    """Hook into the back end's start."""
    if os.environ.get("EBBTIDE_TRITON_WINDOWS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(BEGIN, gather_one_more, HookType.AFTER)


def gather_one_more(result: Any, back_end: Any, *_: Any, **__: Any) -> Any:
    """Let the back end gather W keys. A prompt's kernel masks by the layer's own number, so it is as it was."""
    gathers = inspect.getsource(sys.modules[MODULE].update_sliding_window_buffer)
    if (back_end.sliding_window_size or 0) > 0 and MENDED not in gathers:
        back_end.sliding_window_size += 1
    return result
