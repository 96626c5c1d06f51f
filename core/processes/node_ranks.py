"""The trainer ranks of one node: what the driver does for all of them, and what they hand to it, over gloo.

Of the nodes of an engine that is spread over several they are one group, as if it were one node. A rank alone needs no
group, and every call returns at once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from core.processes import plain

T = TypeVar("T")
RESULT_BYTES = 1024  # what the driver tells is a message of this size, the same for every act; empty: it failed
SIGNATURE_BYTES = hashlib.sha256().digest_size


class DriverFailed(RuntimeError):
    """The driver of this node gave up what its ranks were doing together; its own log and record say why."""


class NotOfThisRun(RuntimeError):
    """Bytes that no rank of this run has signed."""


class NodeRanks:
    """The driver is the first. Collective: every method, over the ranks of the node, in the same order on all of them;
    the callers wait up to the group's timeout.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, secret: str = "") -> None:
        """Take a place among the ranks of a node.

        Args:
        group: gloo, of all ranks of the node; None: this rank is alone.
        secret: the run's key. What the driver is handed, engines unpickle: it must come from a rank of the run.
        """
        self._group = group
        self._secret = secret.encode()
        self._num_handed = 0  # part of what is signed: nothing can be handed over again
        self.size = dist.get_world_size(group) if group is not None else 1
        self.local_rank = dist.get_rank(group) if group is not None else 0
        self._driver = dist.get_global_rank(group, 0) if group is not None else 0

    @classmethod
    def meet(cls, per_node: int, secret: str, timeout_s: float) -> NodeRanks:
        """Make a group for each node. Collective: all trainer ranks of the run."""
        if per_node == 1:
            return cls()
        deadline = timedelta(seconds=timeout_s)
        group, _ = dist.new_subgroups(per_node, timeout=deadline, backend="gloo")  # type: ignore[no-untyped-call]
        return cls(group, secret)

    def on_driver(self, act: Callable[[], T]) -> T:
        """Have the driver do something while the others wait; all of them get what it returned.

        Args:
            act: called on the driver only; returns a plain value (`core.processes.plain`) of a few numbers.
        Raises:
            DriverFailed: on the others, if `act` raised; the driver raises what it raised.
        """
        if self._group is None:
            return act()
        message = torch.zeros(RESULT_BYTES, dtype=torch.uint8)
        try:
            if self.local_rank == 0:
                message = _message(act())
        finally:
            dist.broadcast(message, self._driver, self._group)
        text = message.numpy().tobytes().rstrip(b"\0")
        if not text:
            raise DriverFailed(
                f"trainer rank {self._driver}, which drives this node's engines, has given up: see its log"
            )
        return plain.load(text)  # type: ignore[no-any-return]

    def to_driver(self, data: bytes) -> list[bytes]:
        """What each rank has, in their order, on the driver; nothing on the others. Lengths may differ.

        Raises:
            NotOfThisRun: on the driver; naming the rank whose bytes are not signed with the run's key.
        """
        if self._group is None:
            return [data]
        self._num_handed += 1
        signed = self._signature(data, self.local_rank) + data
        length = torch.tensor([len(signed)])
        lengths = [torch.empty_like(length) for _ in range(self.size)] if self.local_rank == 0 else None
        dist.gather(length, lengths, self._driver, self._group)
        if lengths is None:
            dist.send(torch.frombuffer(bytearray(signed), dtype=torch.uint8), self._driver, self._group)
            return []
        return [data, *(self._received(rank, int(lengths[rank])) for rank in range(1, self.size))]

    def _received(self, local_rank: int, length: int) -> bytes:
        assert self._group is not None
        signed = torch.empty(length, dtype=torch.uint8)
        dist.recv(signed, dist.get_global_rank(self._group, local_rank), self._group)
        return self._checked(signed.numpy().tobytes(), local_rank)

    def _signature(self, data: bytes, local_rank: int) -> bytes:
        return hmac.digest(self._secret, f"{self._num_handed} {local_rank} ".encode() + data, "sha256")

    def _checked(self, signed: bytes, local_rank: int) -> bytes:
        data = signed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signed[:SIGNATURE_BYTES], self._signature(data, local_rank)):
            raise NotOfThisRun(
                f"what local rank {local_rank} handed to the driver of its node was not signed by a rank of this run: "
                "another process reaches the ranks' gloo connections"
            )
        return data


def _message(result: object) -> Tensor:
    """A plain value in a message of the size that the others expect."""
    text = plain.dump(result)
    if len(text) > RESULT_BYTES:
        raise ValueError(f"{len(text)} bytes cannot be told to the ranks of a node at once; wanted {RESULT_BYTES}")
    return torch.frombuffer(bytearray(text.ljust(RESULT_BYTES, b"\0")), dtype=torch.uint8)
