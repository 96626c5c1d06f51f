"""Weights from one buffer: loaded once as SGLang loads them, and then again by the same copies, without its Python.

SGLang calls `load` inside the engine for the load format "ebbtide_weight_replay.load" (--custom-weight-loader). The
model's own load_weights finds out for each tensor where it goes: under which name, fused with what, which part of it is
this rank's. That is nearly all of the time that a small model takes, and the answer is the same for every bucket with
the same layout. So the first such bucket is watched on its way: which slices of the buffer are copied to which places
in the memory of parameters. The next ones are brought there by a few fused copies.

Nothing is replayed, and load_weights is called always, if there is more to it than such copies: a parameter that is
computed from tensors or that something is computed from, a tensor that nobody was seen to copy, copies to one place.
Where a parameter has moved, the next bucket is watched again.

A factor of weights in few bits that goes nowhere is an error: SGLang's loaders would go on with what lay there by
chance, with no more than a warning in the log.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FACTORS = (".weight_scale_inv", ".weight_scale")  # ends of their names
MAX_RECORDINGS = 3  # of one layout: parameters that keep moving are not worth it
Spec = tuple[tuple[int, ...], tuple[int, ...], int]  # size, strides and offset, in elements

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """A copy from a slice of the buffer to a place in a parameter."""

    target: Tensor
    dtype: torch.dtype  # of the source; copying casts
    source: Spec


@dataclass(frozen=True)
class Home:
    """A parameter, and where it lay when it was watched."""

    owner: Mapping[str, Tensor | None]
    name: str
    found: tuple[int, torch.Size, tuple[int, ...]]

    def is_same(self) -> bool:
        """Whether it lies there still. Its memory cannot have been given to another: the copies hold it."""
        tensor = self.owner.get(self.name)
        return tensor is not None and (tensor.data_ptr(), tensor.shape, tensor.stride()) == self.found


@dataclass
class Plan:
    """What is known of one layout."""

    num_recordings: int = 0
    homes: list[Home] = field(default_factory=list)
    groups: list[tuple[torch.dtype, list[Tensor], list[Spec]]] = field(default_factory=list)  # empty: no replay

    def holds(self) -> bool:
        """Whether it may be replayed now."""
        return bool(self.groups) and all(home.is_same() for home in self.homes)

    def is_worth_watching(self) -> bool:
        """Whether it is new, or was of use until parameters moved."""
        return not self.num_recordings or bool(self.groups and self.num_recordings < MAX_RECORDINGS)

    def replay(self, flat: Tensor) -> None:
        """The copies."""
        for dtype, targets, sources in self.groups:
            typed = as_dtype(flat, dtype)
            torch._foreach_copy_(targets, [typed.as_strided(*source) for source in sources])


_plans: WeakKeyDictionary[nn.Module, dict[str, Plan]] = WeakKeyDictionary()


def load(model: nn.Module, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Load one bucket.

    Args:
        named_tensors: one pair: the layout, as `core.sglang.payload` writes it, and the bytes.
    """
    ((layout, flat),) = named_tensors
    plans = _plans.setdefault(model, {})
    plan = plans.setdefault(layout, Plan())
    with torch.no_grad():
        if plan.holds():
            plan.replay(flat)
        elif plan.is_worth_watching():
            plan.groups = []  # they would keep memory that the parameters have left
            plans[layout] = record(model, layout, flat, plan.num_recordings + 1)
        else:
            model.load_weights(tensors_of(layout, flat))  # type: ignore[operator]
    if flat.is_cuda:  # the answer says that the buffer may be overwritten
        torch.cuda.current_stream(flat.device).synchronize()


def tensors_of(layout: str, flat: Tensor) -> list[tuple[str, Tensor]]:
    """The tensors as they lie in the buffer."""
    found = []
    for name, shape, dtype, start, end in json.loads(layout):
        found.append((name, flat[start:end].view(getattr(torch, dtype)).view(shape)))
    return found


def as_dtype(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """The whole buffer as elements of `dtype`."""
    return flat[: flat.numel() // dtype.itemsize * dtype.itemsize].view(dtype)


def record(model: nn.Module, layout: str, flat: Tensor, number: int) -> Plan:
    """Have the model load the bucket, and see what it does with it."""
    homes = [
        Home(module._parameters, name, (tensor.data_ptr(), tensor.shape, tensor.stride()))
        for module in model.modules()
        for name, tensor in module._parameters.items()
        if tensor is not None
    ]
    recorder = _Recorder(flat, {address(tensor) for tensor in model.parameters()})
    tensors = tensors_of(layout, flat)
    with recorder:
        model.load_weights(tensors)  # type: ignore[operator]
    moved = not all(home.is_same() for home in homes)
    starts = [start for _, _, _, start, _ in json.loads(layout)]
    _miss_no_factor(model, [tensors[place][0] for place in _others(recorder.read_at, starts)])
    copied = [copy.source[2] * copy.dtype.itemsize for copy in recorder.copies]
    unseen = bool(_others(copied, starts))
    reason = "a parameter was replaced" if moved else _why_not(recorder, unseen)
    log.info("weight_replay tensors=%d copies=%d why_not=%s", len(tensors), len(recorder.copies), reason)
    if reason:
        return Plan(number)
    written = {address(copy.target) for copy in recorder.copies}
    used = [home for home in homes if (found := home.owner[home.name]) is not None and address(found) in written]
    return Plan(number, used, _grouped(recorder.copies))


def _miss_no_factor(model: nn.Module, unread: Sequence[str]) -> None:
    """Raise RuntimeError if factors are among the tensors that no operation has read: they went nowhere."""
    if lost := [name for name in unread if name.endswith(FACTORS)]:
        raise RuntimeError(f"SGLang's {type(model).__name__} has no place for {lost[0]} ({len(lost)} such)")


def _why_not(recorder: _Recorder, unseen: bool) -> str:
    """Why copies alone would not do; empty: they do."""
    if recorder.more_than_copies:
        return f"there is {recorder.more_than_copies} beside copies"
    if unseen:
        return "a tensor is used unseen"
    return "copies overlap" if _overlap(recorder.copies) else ""


def address(tensor: Tensor) -> int:
    """Address of the memory that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of this thread on the buffer or on parameters."""

    def __init__(self, flat: Tensor, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flat = address(flat)
        self._parameters = parameters
        self._watched = parameters | {self._flat}
        self.copies: list[Copy] = []
        self.read_at: list[int] = []  # where in the buffer, in bytes
        self.more_than_copies = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()]  # nothing is nothing's concern
        if any(address(tensor) in self._watched for tensor in tensors) and not _is_view(func):
            self.read_at += [_start(tensor) for tensor in tensors if address(tensor) == self._flat]
            self._note(func, args)
        return result

    def _note(self, func: Any, args: Sequence[Any]) -> None:
        if func is not torch.ops.aten.copy_.default:
            self.more_than_copies = str(func)
            return
        target, source = args[:2]
        if address(target) not in self._parameters or address(source) != self._flat:
            self.more_than_copies = str(func)
            return
        source, target = source.expand_as(target), target.detach()
        if source.dtype == target.dtype and source.dtype.itemsize == 1:  # fp8: not every device copies many at once
            source, target = source.view(torch.uint8), target.view(torch.uint8)
        spec = (tuple(source.shape), source.stride(), source.storage_offset())
        self.copies.append(Copy(target, source.dtype, spec))


def _is_view(func: Any) -> bool:
    """Whether it only looks at memory in another way."""
    schema = func._schema
    return not schema.is_mutable and bool(schema.returns) and all(one.alias_info for one in schema.returns)


def _start(tensor: Tensor) -> int:
    """Distance of its first element from the beginning of its memory, in bytes."""
    return int(tensor.storage_offset()) * tensor.element_size()


def _others(positions: Iterable[int], starts: Sequence[int]) -> list[int]:
    """Tensors in which no position lies: not used, or in a way that was not seen (a kernel of the model's own, another
    thread).

    Args:
        positions: in the buffer, in bytes. starts: where its tensors begin.
    """
    found = {bisect(starts, position) - 1 for position in positions}
    return [place for place in range(len(starts)) if place not in found]


def _overlap(copies: Sequence[Copy]) -> bool:
    """Whether the order of the copies matters."""
    extents = sorted(_extent(copy.target) for copy in copies)
    return any(end > start for (_, end), (start, _) in pairwise(extents))


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte, and the one after the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _grouped(copies: Sequence[Copy]) -> list[tuple[torch.dtype, list[Tensor], list[Spec]]]:
    """Groups that one kernel can copy together: with one odd pair in a group, each pair is copied on its own."""
    groups: dict[Any, tuple[torch.dtype, list[Tensor], list[Spec]]] = {}
    for copy in copies:
        alike = copy.target.stride() == copy.source[1] and copy.target.is_contiguous()
        group = groups.setdefault((copy.dtype, copy.target.dtype, alike), (copy.dtype, [], []))
        group[1].append(copy.target)
        group[2].append(copy.source)
    return list(groups.values())
