"""Lets megatron-core 0.16 run without CUDA: device queries, `device="cuda"` literals and RNG states go to the CPU.

Does nothing where CUDA is available. The patches touch megatron's own modules, and three torch functions that would
only raise without CUDA.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# modules that pass device="cuda" as a literal on a path that we use
_LITERAL_CUDA = (
    "megatron.core.optimizer.clip_grads",
    "megatron.core.optimizer.optimizer",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.utils",
    "megatron.core.pipeline_parallel.schedules",
    "megatron.core.dist_checkpointing.exchange_utils",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver",
)
_FACTORIES = frozenset(("tensor", "zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "arange"))


class _TorchOnCpu(types.ModuleType):
    """Stands in for the name `torch` inside one module: factories asked for CUDA give CPU tensors."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(torch, name)
        if name in _FACTORIES:
            value = _on_cpu(value)
        setattr(self, name, value)
        return value


def install() -> None:
    """Patch once per process; later calls and machines with CUDA change nothing. Collective: none."""
    if torch.cuda.is_available() or getattr(torch.cuda, "_ebbtide_shim", False):
        return
    torch.cuda._ebbtide_shim = True  # type: ignore[attr-defined]
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment, return-value]
    torch.cuda.synchronize = lambda *_, **__: None
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    stand_in = _TorchOnCpu("torch")
    for name in _LITERAL_CUDA:
        setattr(importlib.import_module(name), "torch", stand_in)  # noqa: B010
    _patch_rng()
    _patch_dispatcher()
    _patch_uneven()


@contextmanager
def tensors_named_as_cuda() -> Iterator[None]:
    """Names of CUDA types while an optimiser is built: it compares `tensor.type()` with "torch.cuda.FloatTensor"."""
    if torch.cuda.is_available():
        yield
        return
    original = torch.Tensor.type

    def named(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        return result.replace("torch.", "torch.cuda.", 1) if isinstance(result, str) else result

    torch.Tensor.type = named  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.type = original  # type: ignore[method-assign]


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return factory(*args, **kwargs)

    return make


def _patch_rng() -> None:
    """Tracker states become CPU generator states."""
    from megatron.core.tensor_parallel import random as megatron_random

    class CpuStatesTracker(megatron_random.CudaRNGStatesTracker):  # type: ignore[misc]
        def add(self, name: str, seed: int) -> None:
            self._is_initialized = True
            self.seeds_.add(seed)
            self.states_[name] = torch.Generator().manual_seed(seed).get_state()

        @contextmanager
        def fork(self, name: str = "model-parallel-rng") -> Iterator[None]:
            outside = torch.get_rng_state()
            torch.set_rng_state(self.states_[name])
            try:
                yield
            finally:
                self.states_[name] = torch.get_rng_state()
                torch.set_rng_state(outside)

    megatron_random.CudaRNGStatesTracker = CpuStatesTracker
    megatron_random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def _patch_dispatcher() -> None:
    """Experts' tokens: counts are read at once, without a stream of their own, as the numbers that gloo wants."""
    from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher

    def read_counts(self: Any, _point: str, tokens_per_expert: Any = None) -> Any:
        for name in ("input_splits", "output_splits", "output_splits_tp"):
            if torch.is_tensor(counts := getattr(self, name)):
                setattr(self, name, counts.numpy())
        return tokens_per_expert

    MoEAlltoAllTokenDispatcher.cuda_dtoh_stream = False  # not None: none is made
    MoEAlltoAllTokenDispatcher._maybe_dtoh_and_synchronize = read_counts


def _patch_uneven() -> None:
    """Ranks of a cut expert have other numbers of tokens each, which gloo sends in exchanges alone."""
    from megatron.core.tensor_parallel import mappings

    gather, reduce_scatter = mappings._gather_along_first_dim, mappings._reduce_scatter_along_first_dim

    def gather_uneven(tensor: Tensor, group: Any, sizes: list[int] | None = None, *others: Any) -> Any:
        if sizes is None or group.size() == 1:
            return gather(tensor, group, sizes, *others)
        found = tensor.new_empty(sum(sizes), *tensor.shape[1:])
        to_all = torch.cat([tensor] * group.size())
        dist.all_to_all_single(found, to_all, sizes, [len(tensor)] * group.size(), group=group)
        return found

    def reduce_scatter_uneven(tensor: Tensor, group: Any, sizes: list[int] | None = None, *others: Any) -> Any:
        if sizes is None or group.size() == 1:
            return reduce_scatter(tensor, group, sizes, *others)
        own = sizes[group.rank()]
        parts = tensor.new_empty(own * group.size(), *tensor.shape[1:])
        dist.all_to_all_single(parts, tensor.contiguous(), [own] * group.size(), sizes, group=group)
        return parts.view(group.size(), own, *tensor.shape[1:]).sum(0)

    mappings._gather_along_first_dim, mappings._reduce_scatter_along_first_dim = gather_uneven, reduce_scatter_uneven
