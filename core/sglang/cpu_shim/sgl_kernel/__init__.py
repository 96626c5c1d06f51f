"""Stand-in for SGLang's CUDA kernel package on a machine without a GPU: names resolve, calls raise.

SGLang imports CPU operators from here at start-up; with the `torch_native` attention backend and a Llama or Qwen model,
with experts or without, it calls none of them. Nor does it repack weights for a CPU with AMX: it asks torch for the
operators, and torch has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__version__ = "0.4.7"  # SGLang 0.5.21 checks for at least this


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"sgl_kernel.{name} has no CPU stand-in")

    missing.__name__ = name
    return missing
