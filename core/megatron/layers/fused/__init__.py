"""Triton kernels for what torch would do in many passes over memory. Used on GPUs; the CPU has its own plain code.

Each module holds the kernels of one operation and the function that launches them. `make test` runs the kernels in
Triton's interpreter on the CPU, `make test-gpu` on the GPU.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch


def load(name: str) -> ModuleType | None:
    """One of the modules here, or None where there is no GPU or no Triton."""
    if not torch.cuda.is_available():
        return None
    try:
        return importlib.import_module(f"core.megatron.layers.fused.{name}")
    except ImportError:
        return None
