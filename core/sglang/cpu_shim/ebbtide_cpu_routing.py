"""A plugin for SGLang (0.5.21) on a CPU: it notes chosen experts in memory that it page-locks by way of CUDA."""

from __future__ import annotations

import sys
import traceback
from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes."""
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        target = "sglang.srt.mem_cache.pool_host.common._cuda_host_register"
        HookRegistry.register(target, leave_as_it_is, HookType.REPLACE)
    except Exception:
        traceback.print_exc()
        sys.exit("ebbtide: this SGLang notes chosen experts in another way than 0.5.21")


def leave_as_it_is(*_arguments: Any, **_options: Any) -> None:
    """Lock nothing: no GPU will copy into it."""
