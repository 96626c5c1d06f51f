"""Tensors on their way to an engine on the same machine: one buffer, shared and not copied, named by a short text.

The text is a base64 pickle of the buffer and of what lies where in it, as SGLang's /update_weights_from_tensor reads it
under load format "flattened_bucket", or as our own loader in the engine does (`engine_site/ebbtide_weight_replay.py`).
On a CPU the buffer is a shared-memory file, on a GPU a CUDA IPC handle, one for all tensors. The buffer must live until
the engine has answered.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

from core.sglang.errors import WeightsRefused

NamedTensors = Sequence[tuple[str, Tensor]]
ALIGNMENT_BYTES = 64  # any dtype may start there
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FP8 = torch.float8_e4m3fn
NO_BUFFER = torch.empty(0, dtype=torch.uint8)
DEVICE_ARGUMENT = 6  # of torch's rebuild_cuda_tensor


def check_dtype(name: str, tensor: Tensor, numbers: str = "") -> None:
    """The engine casts to its own precision, but only from a precision that weights are kept in.

    Args:
        numbers: torch's name of what the engine has it in, beside factors: then it is the numbers that are sent; empty:
            it has the weight itself.
    Raises:
        WeightsRefused: another dtype.
    """
    dtypes = (getattr(torch, numbers),) if numbers else DTYPES
    if tensor.dtype not in dtypes:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise WeightsRefused(f"{name} has dtype {str(tensor.dtype).removeprefix('torch.')}, wanted one of {wanted}")


@dataclass(frozen=True)
class Place:
    """Place of a tensor in a bucket."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...]
    start: int  # bytes
    end: int


class Bucket:
    """A buffer that tensors are copied into; made once, then filled and sent again and again.

    It is ordinary memory of its own, so that nothing else is shared with the engine by accident. Between filling it
    and the engine's answer it must be left alone.
    """

    def __init__(self, alignment_bytes: int = ALIGNMENT_BYTES) -> None:
        """Begin with an empty buffer.

        Args:
        alignment_bytes: where tensors may start; 1: without gaps, as an engine lays out what it receives by broadcast.
            Then tensors of wider dtypes must come first.
        """
        self._alignment = alignment_bytes
        self._buffer = NO_BUFFER
        self._used = 0
        self._contained: list[tuple[str, torch.Size, torch.dtype]] = []
        self._layout = ""
        self.places: list[Place] = []

    def fill(self, tensors: NamedTensors) -> None:
        """Replace the contents; returns when the copies are queued on the device's current stream.

        Args:
            tensors: (name, tensor), all on one device; dtypes may differ.
        """
        contained = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]
        if contained != self._contained:
            self.places, self._used = _lay_out(tensors, self._alignment)
            self._contained, self._layout = contained, ""
        device = tensors[0][1].device
        if self._buffer.device != device or self._buffer.numel() < self._used:
            self.release()  # the old one goes before the new one comes
            self._buffer = torch.empty(self._used, dtype=torch.uint8, device=device)
        _copy([view for _, view in self.views()], [tensor for _, tensor in tensors])

    def release(self) -> None:
        """Give up the buffer; where tensors lay in it is remembered, as they may come again."""
        self._buffer = NO_BUFFER

    def views(self) -> list[tuple[str, Tensor]]:
        """The tensors as they lie in the buffer."""
        typed = {dtype: _as_dtype(self.contents(), dtype) for dtype in {place.dtype for place in self.places}}
        return [
            (p.name, typed[p.dtype].as_strided(p.shape, p.strides, p.start // p.dtype.itemsize)) for p in self.places
        ]

    def contents(self) -> Tensor:
        """The bytes of all tensors, as they are broadcast."""
        return self._buffer[: self._used]

    def layout(self) -> str:
        """What lies where, for our loader: the same text for the same names, shapes and dtypes."""
        self._layout = self._layout or json.dumps([_as_replayed(place) for place in self.places])
        return self._layout

    def settle(self) -> None:
        """Wait for the copies: the engine reads on a stream of its own."""
        if self._buffer.is_cuda:
            torch.cuda.current_stream(self._buffer.device).synchronize()

    def serialize(self, replayed: bool = False) -> str:
        """The text for one engine process. Call once per process: a CUDA handle counts its readers.

        Args:
            replayed: for our loader; else for SGLang's.
        """
        _use_named_shared_memory(self._buffer)
        stream = io.BytesIO()
        pickler = ForkingPickler(stream)
        pickler.dispatch_table[Tensor] = _reduce_tensor
        if replayed:
            pickler.dump([(self.layout(), self.contents())])
        else:
            pickler.dump({"flattened_tensor": self.contents(), "metadata": [_as_read(p) for p in self.places]})
        return base64.b64encode(stream.getvalue()).decode()


def _lay_out(tensors: NamedTensors, alignment: int) -> tuple[list[Place], int]:
    """Place of each tensor, and the bytes of all."""
    places, total = [], 0
    for name, tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        shape = tuple(tensor.shape)
        places.append(Place(name, shape, tensor.dtype, _strides(shape), total, total + num_bytes))
        total += -(-num_bytes // alignment) * alignment
    return places, total


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a shape without gaps."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


def _as_dtype(data: Tensor, dtype: torch.dtype) -> Tensor:
    """All of it as elements of `dtype`, but for a remainder that is smaller than one."""
    return data[: data.numel() // dtype.itemsize * dtype.itemsize].view(dtype)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """A few kernels for all of them: one odd pair among those given to a fused copy, and each is copied on its own."""
    groups: dict[tuple[torch.dtype, bool], tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(map(_as_copied, targets), map(_as_copied, sources), strict=True):
        group = groups.setdefault((source.dtype, source.is_contiguous()), ([], []))
        group[0].append(target)
        group[1].append(source)
    with torch.no_grad():
        for alike in groups.values():
            torch._foreach_copy_(*alike)


def _as_copied(tensor: Tensor) -> Tensor:
    """The tensor, or the bytes of one in fp8, which not every device copies many of at once."""
    return tensor.view(torch.uint8) if tensor.dtype == FP8 else tensor


def _as_read(place: Place) -> SimpleNamespace:
    """The attributes that SGLang reads of a tensor in a bucket; any class that its unpickler admits will do."""
    size = place.end - place.start
    return SimpleNamespace(
        name=place.name, shape=place.shape, dtype=place.dtype, start_idx=place.start, end_idx=place.end, numel=size
    )


def _as_replayed(place: Place) -> list[object]:
    return [place.name, place.shape, str(place.dtype).removeprefix("torch."), place.start, place.end]


def _use_named_shared_memory(buffer: Tensor) -> None:
    """The default on Linux hands over file descriptors, which only children can receive: the engine would die of it."""
    if buffer.device.type == "cpu":
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def _reduce_tensor(tensor: Tensor) -> Any:
    """Reduce a tensor like torch, but name a GPU by its UUID: its index may differ between the two processes."""
    rebuild, arguments = reductions.reduce_tensor(tensor)  # type: ignore[no-untyped-call]
    if tensor.device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(tensor.device).uuid)
        arguments = (*arguments[:DEVICE_ARGUMENT], uuid, *arguments[DEVICE_ARGUMENT + 1 :])
    return rebuild, arguments
