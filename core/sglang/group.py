"""A process group of one trainer rank, rank 0, and the processes of some engines: what it broadcasts, they receive.

    join ──► broadcast, broadcast, … ──► leave
              └─ an engine fails, or a deadline passes ──► GroupBroken: this side leaves at once

The members meet in the run's store, which listens already, under a name that is used once; nobody opens a port.
SGLang makes its side with torch's own helper for process groups, and so does this one: both then agree on what stands
where in the store, whatever torch's version. NCCL connects at the first broadcast, gloo when the group is joined.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import accumulate
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore, distributed_c10d

from core.sglang.background import in_background

POLL_S = 0.001
ERROR_HANDLING = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
CLEAN_UP_ONLY = "2"  # by default NCCL's watchdog ends this whole process when a peer of the group dies


class GroupBroken(RuntimeError):
    """What was under way will not end: an engine failed or took too long. The group is of no use any more."""


class WeightGroup:
    """The sender's side. The engines take part when they are asked to, by requests that the caller posts.

    Collective: none among trainer ranks; each may have groups of its own.
    """

    def __init__(self, name: str, sizes: Sequence[int], store: tuple[str, int], backend: str, deadline_s: float):
        """Lay out the ranks of the group; nobody has joined yet.

        Args:
        name: never used before in this store.
        sizes: tensor-parallel ranks of each engine.
        store: host and port of a TCPStore that all of them reach.
        backend: "nccl" or "gloo".
        deadline_s: of joining, and of each broadcast.
        """
        self.name = name
        self._offsets = list(accumulate(sizes, initial=1))
        self._store = store
        self._backend = backend
        self._deadline_s = deadline_s
        self._group: dist.ProcessGroup | None = None

    @property
    def joined(self) -> bool:
        """Whether the group stands: between `join` and `leave`, unless it broke."""
        return self._group is not None

    def invitations(self) -> list[dict[str, Any]]:
        """Bodies of /init_weights_update_group, one for each engine."""
        common = {"master_address": self._store[0], "master_port": self._store[1], "group_name": self.name}
        common |= {"world_size": self._offsets[-1], "backend": self._backend}
        return [{**common, "rank_offset": offset} for offset in self._offsets[:-1]]

    def join(self, answers: Sequence[Future[Any]]) -> None:
        """Meet the others.

        Args:
            answers: the engines' to their invitations.
        Raises:
            GroupBroken: somebody failed, or did not come in time.
        """
        own = in_background(self._make)
        self._await([own, *answers], (), "did not form")
        self._group = own.result()

    def broadcast(self, buffer: Tensor, answers: Sequence[Future[Any]]) -> None:
        """Send a buffer to all; returns when it has left, so that the next request may be posted.

        Args:
            buffer: uint8; to be left alone until the engines have answered.
            answers: the engines' to the requests that have them take part.
        Raises:
            GroupBroken: somebody failed, or it took too long.
        """
        if self._group is None:
            raise GroupBroken(f"weight group {self.name} has been left")
        self._await([in_background(_send, buffer, self._group)], answers, "did not finish a broadcast")

    def leave(self) -> None:
        """Give the group up; returns at once, and waits for nobody."""
        group, self._group = self._group, None
        if group is not None:
            in_background(distributed_c10d._abort_process_group, group)

    def _make(self) -> dist.ProcessGroup:
        """This side of what SGLang's init_custom_process_group makes."""
        timeout, size = timedelta(seconds=self._deadline_s), self._offsets[-1]
        client = TCPStore(*self._store, is_master=False, wait_for_workers=False, timeout=timeout)
        store = PrefixStore(self.name, client)
        backend = distributed_c10d.Backend(self._backend)
        with _outlives_peers():
            made = distributed_c10d._new_process_group_helper(
                size, 0, [], backend, store, group_name=cast(Any, self.name), timeout=timeout
            )
        group: dist.ProcessGroup = made[0]
        distributed_c10d._world.pg_group_ranks[group] = {rank: rank for rank in range(size)}
        return group

    def _await(self, own: Sequence[Future[Any]], others: Sequence[Future[Any]], what: str) -> None:
        """Wait until all of `own` are done; a failure among both ends the wait."""
        end = time.monotonic() + self._deadline_s
        while True:
            for one in (*own, *others):
                if one.done() and (error := one.exception()) is not None:
                    self._break(f"{what}: {type(error).__name__}: {error}")
            if all(one.done() for one in own):
                return
            if time.monotonic() > end:
                self._break(f"{what} within {self._deadline_s:g} s")
            time.sleep(POLL_S)

    def _break(self, what: str) -> None:
        self.leave()
        raise GroupBroken(f"weight group {self.name} of {self._offsets[-1]} ranks {what}")


def _send(buffer: Tensor, group: dist.ProcessGroup) -> None:
    """Send the buffer, and return when it has left; no stream of this process waits for that."""
    with torch.cuda.device(buffer.device) if buffer.is_cuda else nullcontext():
        work = dist.broadcast(buffer, src=0, group=group, async_op=True)
        assert work is not None
        while not work.is_completed():
            time.sleep(POLL_S)
        if not buffer.is_cuda:
            work.wait()  # raises what went wrong; with NCCL it would make a stream wait, and the engines' answers tell


@contextmanager
def _outlives_peers() -> Iterator[None]:
    before = os.environ.get(ERROR_HANDLING)
    os.environ[ERROR_HANDLING] = CLEAN_UP_ONLY
    try:
        yield
    finally:
        os.environ.pop(ERROR_HANDLING)
        if before is not None:
            os.environ[ERROR_HANDLING] = before
