"""Weights for engines with GPUs of their own: a process group of this rank and all engines that it drives there.

Each driver has a group of its own, over NCCL (CPU: gloo), so the nodes of the trainers share the work. When an engine
dies amid a broadcast the group breaks, the other engines stay stale, and the sync begins again without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from core.engines.roster import Engine, Engines
from core.processes.rendezvous import Address
from core.sglang.payload import Bucket, NamedTensors
from core.weights.kept_group import KeptGroup, Sent
from core.weights.receivers import Receivers

DEADLINE_S = 120.0  # for a group to form, and for one bucket to arrive


class WeightBroadcast:
    """The group of this rank, one sync after the other. Collective: none."""

    def __init__(self, registry: Engines, store: Address, backend: str, sender: str, deadline_s: float = DEADLINE_S):
        """Prepare the group of this rank; nobody has joined yet.

        Args:
        store: the run's, where members of a group meet.
        backend: "nccl" or "gloo".
        sender: this rank's name, for logs.
        """
        self._registry = registry
        self.group = KeptGroup(registry, store, backend, sender, deadline_s)

    def takes(self, engine: Engine) -> bool:
        """Any engine that reaches the store, so all of them."""
        del engine
        return True

    def open(self, engines: Sequence[Engine], version: str) -> BroadcastDelivery:
        """Open an update on each engine; form the group, unless it is there already."""
        receivers = Receivers(self._registry, engines, version)
        receivers.begin()
        self.group.hold([engine for engine, _ in receivers.alive()])
        return BroadcastDelivery(receivers, self.group)


@dataclass
class _Slot:
    bucket: Bucket = field(default_factory=lambda: Bucket(alignment_bytes=1))  # as the engine lays it out
    sent: Future[Sent] | None = None


class BroadcastDelivery:
    """One version on its way. Two buckets in turns: while the engines load one, the next is gathered and sent."""

    def __init__(self, receivers: Receivers, group: KeptGroup) -> None:
        self._receivers = receivers
        self._group = group
        self._slots = [_Slot(), _Slot()]
        self._sender = ThreadPoolExecutor(1, "weight-broadcast")  # one: buckets must leave in order

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have it sent after the one before."""
        slot = self._slots[0]
        self._settle(slot)
        if self._group.whole and (takers := self._receivers.alive()):
            self._receivers.check(tensors)
            slot.bucket.fill(sorted(tensors, key=lambda item: -item[1].element_size()))  # so that all are aligned
            slot.bucket.settle()
            slot.sent = self._sender.submit(self._group.send, slot.bucket, takers)
        self._slots.reverse()

    def close(self) -> None:
        """Close the updates; without a whole group nobody has all of the weights."""
        for slot in self._slots:
            self._settle(slot)
        self._sender.shutdown()
        self._slots = []  # the buffers go
        if self._group.whole:
            self._receivers.end()
        else:
            self._receivers.abandon()

    def _settle(self, slot: _Slot) -> None:
        """Wait until every engine has taken the bucket."""
        if slot.sent is None:
            return
        sent, slot.sent = slot.sent.result(), None
        if sent.broken is None:
            self._receivers.settle(sent.answers)
        else:
            self._group.after_break(sent.answers, sent.broken)
