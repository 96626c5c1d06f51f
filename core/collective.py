"""Small collectives of the control plane: objects and flags, over gloo, whatever device the model is on.

Thin names over accelerate's torch-distributed utilities. The default process group is created by
`core.megatron.parallel` with a gloo backend for CPU tensors; its timeout is the deadline of every call here.
Collective: every function must be called by all trainer ranks, else the callers wait until that deadline.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


def gather_lists(items: list[T]) -> list[T]:
    """The items of all ranks, in rank order, on every rank."""
    return list(gather_object(items)) if _num_ranks() > 1 else items


def broadcast(value: T) -> T:
    """Rank 0's value on every rank."""
    box: list[Any] = [value]
    if _num_ranks() > 1:
        broadcast_object_list(box, from_process=0)
    return box[0]  # type: ignore[no-any-return]


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on at least one rank."""
    value = torch.tensor([int(flag)])
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def _num_ranks() -> int:
    """How many ranks take part, once accelerate knows about them.

    Left to itself, accelerate takes a run without a GPU for a single process, and its collectives return what they
    are given.
    """
    state, num_ranks = PartialState(cpu=True), dist.get_world_size()
    if state.num_processes != num_ranks:
        raise RuntimeError(f"accelerate sees {state.num_processes} processes, torch.distributed {num_ranks}")
    return num_ranks
