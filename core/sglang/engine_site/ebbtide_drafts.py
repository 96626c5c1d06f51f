"""A plugin for SGLang (0.5.16 and 0.5.21), for engines with speculative decoding: a sync is of the model alone.

Otherwise SGLang loads what it is sent, and what it reads from files, into a model that drafts, too, and ends over files
where none does. That model keeps its weights over a release of memory by SGLang's `enable_draft_weights_cpu_backup`,
which `core.sglang.speculation` sets.

The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process. Without EBBTIDE_DRAFTS=1
(`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

UPDATES = "sglang.srt.managers.scheduler_components.weight_updater.SchedulerWeightUpdaterManager.update_weights_from_"
WAYS = ("tensor", "distributed", "disk", "ipc")
CAPTURE = "sglang.srt.managers.scheduler.Scheduler.init_all_cuda_graphs"
BACK_ENDS = {  # by module, what of it SGLang asks for, whichever it computes attention with
    "sglang.srt.layers.attention.dsa_backend": "DeepseekSparseAttnBackend",
    "sglang.srt.layers.attention.deepseek_v4_backend": "DeepseekV4AttnBackend",
    "sglang.srt.layers.attention.flashmla_backend": "FlashMLABackend",
}


def register() -> None:
    """Hook into all ways by which weights come, and into the start."""
    if os.environ.get("EBBTIDE_DRAFTS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for way in WAYS:
        HookRegistry.register(UPDATES + way, without_drafts, HookType.AROUND)
    HookRegistry.register(CAPTURE, without_other_back_ends, HookType.AROUND)


def without_drafts(usual: Callable[..., Any], manager: Any, *arguments: Any, **named: Any) -> Any:
    """Update as an engine does that drafts nothing."""
    drafting, manager.draft_worker = manager.draft_worker, None
    try:
        return usual(manager, *arguments, **named)
    finally:
        manager.draft_worker = drafting


def without_other_back_ends(usual: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Capture graphs where packages of back ends that are not used are missing: a model that drafts would not start."""
    with stand_ins():
        return usual(*arguments, **named)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Modules in the place of those that cannot be imported, each with a class that nothing is of."""
    made = []
    for module, name in BACK_ENDS.items():
        try:
            import_module(module)
        except Exception:  # a kernel of another GPU may raise anything
            sys.modules[module] = ModuleType(module)
            setattr(sys.modules[module], name, type(name, (), {}))
            made.append(module)
    try:
        yield
    finally:
        for module in made:
            del sys.modules[module]
