"""A plugin for SGLang (0.5.16 and 0.5.21): engines whose ranks compute attention in groups (`enable_dp_attention`).

The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in its processes. Without
EBBTIDE_ATTENTION_GROUPS=1 (`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import os
from typing import Any

SLEEP_MS = 5  # of an idle group; the others wait for it as long
SLEEP = "sglang.srt.managers.scheduler_components.idle_sleeper.IdleSleeper.maybe_sleep"
FLUSH = "sglang.srt.managers.tokenizer_control_mixin.TokenizerControlMixin.flush_cache"


def register() -> None:
    """Hook into both functions."""
    if os.environ.get("EBBTIDE_ATTENTION_GROUPS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(SLEEP, sleep_shortly, HookType.REPLACE)
    HookRegistry.register(FLUSH, flush_all, HookType.REPLACE)


def sleep_shortly(sleeper: Any) -> None:
    """Sleep until a request comes, but not long.

    A group is woken by its own requests alone, and every step of the others waits for it, as every request to the whole
    engine does: with SGLang's sleep of up to a second a weight sync, which is five such requests, took five.
    """
    sleeper.poller.poll(SLEEP_MS)


async def flush_all(manager: Any, timeout_s: float | None = None) -> Any:
    """Flush the caches of all groups; the answer of one that has not, if there is one.

    SGLang gives the answer of the first, and whoever then releases memory kills the group that still had a request.
    """
    from sglang.srt.managers.io_struct import FlushCacheReqInput

    manager.auto_create_handle_loop()
    answers = await manager.flush_cache_communicator(FlushCacheReqInput(timeout_s=timeout_s))
    return next((answer for answer in answers if not answer.success), answers[0])
