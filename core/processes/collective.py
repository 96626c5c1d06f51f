"""Small collectives of the control plane: plain values, samples and flags, over gloo, whatever device the model is on.

What travels is JSON text and arrays of numbers, never a pickle: a rank that reads another's bytes can be given wrong
values by it, but not code. Over accelerate's gather and broadcast of tensors. The default process group is created by
`core.megatron.parallel` with a gloo backend for CPU tensors or `join`; its timeout is the deadline of every call here.
Collective: every function must be called by all trainer ranks, else the callers wait until that deadline.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast as broadcast_tensor
from accelerate.utils import gather, pad_across_processes
from torch import Tensor

from core.processes import plain

T = TypeVar("T")
LENGTH_BYTES = 8  # in front of every rank's payload, as all are padded to the longest


def join(timeout_s: float) -> None:
    """Make the default process group, of ranks that have no model: with gloo alone, whatever the device.

    The environment of torch.distributed (torchrun's) must be set. Collective: every rank waits up to `timeout_s`.
    """
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))


def gather_lists(items: list[T]) -> list[T]:
    """The items of all ranks, in rank order, on every rank.

    Raises:
        plain.NotPlain: an item that `core.processes.plain` cannot write.
    """
    if num_ranks() == 1:
        return items
    return [item for part in gather_bytes(plain.dump(items)) for item in plain.load(part)]


def gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of all ranks, in rank order, on every rank; lengths may differ."""
    if num_ranks() == 1:
        return [data]
    framed = _tensor(len(data).to_bytes(LENGTH_BYTES, "little") + data)
    parts = gather(pad_across_processes(framed)).numpy().reshape(num_ranks(), -1)
    lengths = [int.from_bytes(part[:LENGTH_BYTES].tobytes(), "little") for part in parts]
    return [part[LENGTH_BYTES : LENGTH_BYTES + n].tobytes() for part, n in zip(parts, lengths, strict=True)]


def broadcast(value: T) -> T:
    """Rank 0's value on every rank.

    Raises:
        plain.NotPlain: a value that `core.processes.plain` cannot write.
    """
    if num_ranks() == 1:
        return value
    data = plain.dump(value) if dist.get_rank() == 0 else b""
    length = int(broadcast_tensor(torch.tensor([len(data)])).item())
    buffer = _tensor(data) if dist.get_rank() == 0 else torch.empty(length, dtype=torch.uint8)
    return plain.load(broadcast_tensor(buffer).numpy().tobytes())  # type: ignore[no-any-return]


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on at least one rank."""
    value = torch.tensor([int(flag)])
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def num_ranks() -> int:
    """How many ranks take part, once accelerate knows about them.

    Left to itself, accelerate takes a run without a GPU for a single process, and its collectives return what they
    are given.
    """
    state, found = PartialState(cpu=True), dist.get_world_size()
    if state.num_processes != found:
        raise RuntimeError(f"accelerate sees {state.num_processes} processes, torch.distributed {found}")
    return found


def _tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
