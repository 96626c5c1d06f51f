"""Megatron's functions as they are written on a CPU, and compiled where there is a GPU.

Megatron decorates some with torch.compile as it is imported. On a CPU the decorating alone imports torch's compiler,
three of the eight seconds that a rank needs to start, and the first call would need a C++ compiler. No torch is
imported here: a login node plans with this package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "megatron.core.jit"


def install() -> None:
    """Take the place of Megatron's module of that name, before Megatron is imported."""
    if NAME in sys.modules:
        return
    module = ModuleType(NAME, "core.megatron.jit: compiles only where there is a GPU")
    module.jit_fuser = compiled_on_a_gpu  # type: ignore[attr-defined]
    sys.modules[NAME] = module


def compiled_on_a_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator that Megatron calls its fuser."""
    import torch

    return torch.compile(function) if torch.cuda.is_available() else function
