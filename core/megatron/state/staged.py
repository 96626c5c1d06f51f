"""A save in two halves: what the trainer is waited for, and the writing, which needs nothing more of it.

    stage   what is to be written is planned, and kept as it is now        the trainer's ranks, in their own thread
    write   each rank its files; then rank 0 which tensor lies in which    any thread, over the group that is given

Megatron plans, and torch writes the files and puts down where tensors lie. Left out: Megatron's own writing processes,
forks of the trainer, whose memory would double as the next step changes it.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import SerializationFormat, _write_item
from torch.distributed.checkpoint.utils import _DistWrapper

Write = Callable[[dist.ProcessGroup], None]  # collective over the group; once, in any thread


def stage(directory: Path, state: dict[str, Any], about: dict[str, Any], own: Iterable[Tensor] | None) -> Write:
    """Plan the files of a sharded state, and write what all ranks have in common.

    Args:
        directory: it is there.
        about: what Megatron keeps of how the state is laid out.
        own: tensors that the trainer goes on to change: of these, and of all on a GPU, the host has copies on return.
            None: the write comes before anything changes, so nothing is copied yet.
    Returns:
        the rest of the work. It raises `OSError` where this rank's files cannot be written, `WriteFailed` where
        another's cannot.
    Collective: all trainer ranks, in one order.
    """
    # results would come back through this queue; Megatron's own is a server process, started by importing main again
    filesystem_async._results_queue = queue.SimpleQueue()
    plan = _Plan()
    dist_checkpointing.save(state, str(directory), sharded_strategy=plan, content_metadata=about)
    if own is not None:
        plan.copy_to_host({tensor.untyped_storage().data_ptr() for tensor in own})
    return partial(_write, plan)


class WriteFailed(RuntimeError):
    """Another rank could not write its files."""


class _Plan(TorchDistSaveShardedStrategy):  # type: ignore[misc]
    """What Megatron would write, kept."""

    def __init__(self) -> None:
        super().__init__("torch_dist", 1)
        self.writer: Any = None
        self.metadata: Any = None  # on rank 0: which tensors there are
        self.files: list[Any] = []  # path, name, (objects, tensors) with what each is

    def save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> None:
        """Plan, and no more."""
        self.async_save(sharded_state_dict, checkpoint_dir)

    def _get_save_and_finalize_callbacks(self, writer: Any, save_state_dict_ret: Any) -> AsyncRequest:
        self.writer, self.metadata = writer, save_state_dict_ret[1]
        self.files = writer.write_buckets
        writer.write_buckets = None
        return AsyncRequest(None, (), [])

    def copy_to_host(self, own: set[int]) -> None:
        """Copy tensors with these storages, and those on a GPU; others are copies that Megatron has made."""
        self.files = [
            (path, name, (objects, [(item, _copied(tensor, own)) for item, tensor in tensors]))
            for path, name, (objects, tensors) in self.files
        ]
        torch.cuda.synchronize()

    def write_files(self) -> list[Any]:
        """Write what this rank has; what is written is given up. Where each tensor lies."""
        found = []
        while self.files:
            path, name, (objects, tensors) = self.files.pop(0)
            items = [*objects, *tensors]
            del objects, tensors
            items.reverse()
            with Path(path).open("wb") as file:
                while items:
                    item, data = items.pop()
                    data = data.cpu() if isinstance(data, Tensor) else data
                    write = partial(_write_item, self.writer.transforms, file, data, item, name)
                    found.append(write(serialization_format=SerializationFormat.TORCH_SAVE))
                os.fsync(file.fileno())  # rank 0 may be on another node
        return found


def _copied(tensor: Tensor, own: set[int]) -> Tensor:
    """A copy in host memory, page-locked of what is on a GPU, and there once the GPU is waited for."""
    if not tensor.is_cpu:
        return tensor.to("cpu", non_blocking=True)
    return tensor.clone() if tensor.untyped_storage().data_ptr() in own else tensor


def _write(plan: _Plan, group: dist.ProcessGroup) -> None:
    ranks = _DistWrapper(group, True, 0)
    try:
        ranks.all_reduce("write", plan.write_files, partial(_finish, plan))
    except CheckpointException as failed:
        raise _cause(failed, ranks.get_rank()) from failed


def _finish(plan: _Plan, found: list[list[Any]]) -> None:
    plan.writer.finish(plan.metadata, found)


def _cause(failed: CheckpointException, own_rank: int) -> Exception:
    """The error of this rank, else one that tells of another's."""
    rank = own_rank if own_rank in failed.failures else min(failed.failures)
    error = failed.failures[rank][0]
    if rank == own_rank and isinstance(error, Exception):
        return error
    said = f"{type(error).__name__}: {error}"
    return WriteFailed(f"trainer rank {rank} could not write its part of the checkpoint: {said}")
