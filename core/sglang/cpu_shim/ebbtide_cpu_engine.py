"""What an SGLang server on a CPU needs beyond the packages of the index. Imported by our `sitecustomize` only.

torchvision: SGLang and transformers' image classes import it. The index has only CUDA builds of it, whose operators
    cannot load beside a CPU torch. Text generation calls none of it, so it and everything below it become stand-ins.
sgl_kernel: a stand-in package beside this file, for the same reason.

Tried with SGLang 0.5.21.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _StandInType(type):
    """Type of the stand-ins: any attribute exists (`InterpolationMode.BICUBIC`), no instance does."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"

    def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"{cls.__module__}.{cls.__name__} is a stand-in: the CPU engine serves text only")


class _StandInModule(ModuleType):
    """Module in which every public name resolves to a stand-in class, so that imports and base classes work."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_in = _StandInType(name, (), {"__module__": self.__name__})
        setattr(self, name, stand_in)
        return stand_in


class _StandInFinder(MetaPathFinder, Loader):
    """Finds one package and everything below it."""

    def __init__(self, package: str, version: str) -> None:
        self._package = package
        self._version = version

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._package or fullname.startswith(self._package + "."):
            return ModuleSpec(fullname, self, origin="stand-in", is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _StandInModule(spec.name)
        module.__version__ = self._version  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Put the stand-ins in front of whatever is installed."""
    sys.meta_path.insert(0, _StandInFinder("torchvision", version="0.28.0"))
    _fork_instead_of_spawn()


def leave_uncompiled() -> None:
    """Have decorated functions stay as they are: torch's compiler, which decorating imports, is a third of each start.

    transformers wants a name of it for masks that SGLang never makes. Whoever else asks gets the real compiler.
    """
    import torch

    torch.compile = _unchanged  # type: ignore[assignment]
    for name in _Uncompiled.DECORATORS:
        setattr(torch.compiler, name, _unchanged)
    torch._dynamo = _Uncompiled()  # type: ignore[assignment]
    sys.modules[_MASKS] = _StandInModule(_MASKS)


_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"


class _Uncompiled:
    """`torch._dynamo` until something other than a decorator is wanted of it."""

    DECORATORS = ("allow_in_graph", "assume_constant_result", "disable")

    def __getattr__(self, name: str) -> Any:
        if name in self.DECORATORS:
            return _unchanged
        sys.modules.pop(_MASKS, None)
        return getattr(import_module("torch._dynamo"), name)


def _unchanged(function: Any = None, *_arguments: Any, **_options: Any) -> Any:
    return function if callable(function) else lambda decorated: decorated


def _fork_instead_of_spawn() -> None:
    """Have SGLang's processes forked from the main one.

    SGLang asks for `spawn`, which CUDA needs; each process then repeats ten seconds of imports. Without a GPU nothing
    speaks against `fork`: the main process has started no threads yet, and the imports are shared, in memory too.
    """
    set_start_method = multiprocessing.set_start_method

    def forked(method: str | None, force: bool = False) -> None:
        set_start_method("fork" if method == "spawn" else method, force)

    multiprocessing.set_start_method = forked
