"""Tensors on their way to an engine on the same machine: one buffer, shared and not copied, named by a short text.

The text is a base64 pickle of [(name, tensor)], as SGLang's /update_weights_from_tensor reads it; all tensors are views
of one buffer. On a CPU the buffer is a shared-memory file, on a GPU a CUDA IPC handle. The buffer must live until the
engine has answered.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

from core.sglang.errors import WeightsRefused

NamedTensors = Sequence[tuple[str, Tensor]]
ALIGNMENT_BYTES = 64  # any dtype may start there
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEVICE_ARGUMENT = 6  # of torch's rebuild_cuda_tensor


def check_dtype(name: str, tensor: Tensor) -> None:
    """The engine casts to its own precision, but only from a precision that weights are kept in.

    Raises:
        WeightsRefused: another dtype.
    """
    if tensor.dtype not in DTYPES:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise WeightsRefused(f"{name} has dtype {str(tensor.dtype).removeprefix('torch.')}, wanted one of {wanted}")


def flatten(tensors: NamedTensors) -> list[tuple[str, Tensor]]:
    """Copies of the tensors as views of one new uint8 buffer on their device; dtypes may differ.

    The buffer is ordinary memory of its own, so that nothing else is shared with the engine by accident.
    """
    starts, total = [], 0
    for _, tensor in tensors:
        starts.append(total)
        total += -(-tensor.numel() * tensor.element_size() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    buffer = torch.empty(total, dtype=torch.uint8, device=tensors[0][1].device)
    views = []
    for start, (name, tensor) in zip(starts, tensors, strict=True):
        num_bytes = tensor.numel() * tensor.element_size()
        view = buffer[start : start + num_bytes].view(tensor.dtype).view(tensor.shape)
        view.copy_(tensor.detach())
        views.append((name, view))
    return views


def serialize(views: NamedTensors) -> str:
    """The text for one engine process. Call once per process: a CUDA handle counts its readers."""
    _use_named_shared_memory(views)
    stream = io.BytesIO()
    pickler = ForkingPickler(stream)
    pickler.dispatch_table[Tensor] = _reduce_tensor
    pickler.dump(list(views))
    return base64.b64encode(stream.getvalue()).decode()


def _use_named_shared_memory(views: NamedTensors) -> None:
    """The default on Linux hands over file descriptors, which only children can receive: the engine would die of it."""
    if views[0][1].device.type == "cpu":
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def _reduce_tensor(tensor: Tensor) -> Any:
    """As torch does it, but naming a GPU by its UUID: its index may differ between the two processes."""
    rebuild, arguments = reductions.reduce_tensor(tensor)  # type: ignore[no-untyped-call]
    if tensor.device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(tensor.device).uuid)
        arguments = (*arguments[:DEVICE_ARGUMENT], uuid, *arguments[DEVICE_ARGUMENT + 1 :])
    return rebuild, arguments
