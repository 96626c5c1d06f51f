"""A plugin for SGLang (0.5.16 and 0.5.21): what an engine needs that is sent its weights in int8, again and again.

Once weights are loaded SGLang puts their transpose in their place, as a parameter that knows no way to be loaded, and
of experts parameters of the second kind: no later sync fits. Here all stay as they were loaded, and a linear layer's
product is given its transpose as a view.

The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process. Without
EBBTIDE_ENGINE_WEIGHTS=int8 (`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MODULE = "sglang.srt.layers.quantization.w8a8_int8"
LOADED = tuple(
    f"{MODULE}.{owner}.process_weights_after_loading" for owner in ("W8A8Int8LinearMethod", "W8A8Int8MoEMethod")
)
APPLY = f"{MODULE}.W8A8Int8LinearMethod.apply"


def register() -> None:
    """Hook into all three methods."""
    if os.environ.get("EBBTIDE_ENGINE_WEIGHTS") != "int8":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for target in LOADED:
        HookRegistry.register(target, keep, HookType.REPLACE)
    HookRegistry.register(APPLY, multiply, HookType.AROUND)


def keep(_method: Any, _layer: Any) -> None:
    """Leave a layer's parameters as they were loaded."""


def multiply(
    usual: Callable[..., Tensor], method: Any, layer: Any, activations: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Multiply as SGLang does, by what it expects in the layer."""
    turned = SimpleNamespace(weight=layer.weight.t(), weight_scale=layer.weight_scale)
    return usual(method, turned, activations, bias)
