"""Weights for engines with GPUs of their own: a process group of this rank and all engines that it drives there.

Each driver has a group of its own, over NCCL (CPU: gloo), so the nodes of the trainers share the work. A group stays
for as long as its engines live; one that was restarted gets into a new one at the next sync. When an engine dies amid a
broadcast the group breaks, the other engines stay stale, and the sync begins again without it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from core.engines.roster import Engine, Engines
from core.processes.rendezvous import Address
from core.sglang.background import in_background
from core.sglang.errors import EngineDied, EngineError, EngineTimeout
from core.sglang.group import GroupBroken, WeightGroup
from core.sglang.payload import Bucket, NamedTensors
from core.sglang.weights import WeightUpdate
from core.weights.updates import Answer, WeightUpdates

DEADLINE_S = 120.0  # for a group to form, and for one bucket to arrive
GRACE_S = 10.0  # how long an engine may take to notice that its group is broken

log = logging.getLogger(__name__)


@dataclass
class _Delivery:
    """A bucket that was sent, or why not all of it was."""

    answers: list[Answer]
    broken: GroupBroken | None = None


@dataclass
class _Slot:
    bucket: Bucket = field(default_factory=lambda: Bucket(alignment_bytes=1))  # as the engine lays it out
    delivery: Future[_Delivery] | None = None


class WeightBroadcast:
    """Two buckets in turns: while the engines load one, the next is gathered and sent. Collective: none."""

    def __init__(self, registry: Engines, store: Address, backend: str, sender: str, deadline_s: float = DEADLINE_S):
        """Args:
        store: the run's, where members of a group meet.
        backend: "nccl" or "gloo".
        sender: this rank's name, for logs.
        """
        self._registry = registry
        self._store = store
        self._backend = backend
        self._sender = sender
        self._deadline_s = deadline_s
        self._members: list[Engine] = []
        self._group: WeightGroup | None = None

    def takes(self, engine: Engine) -> bool:
        """Any engine that reaches the store, so all of them."""
        del engine
        return True

    def begin(self, engines: Sequence[Engine], version: str) -> None:
        """Open an update on each; form the group, unless it is there already."""
        self._updates = WeightUpdates(self._registry, engines, version)
        self._updates.begin()
        self._slots = [_Slot(), _Slot()]
        self._sender_thread = ThreadPoolExecutor(1, "weight-broadcast")  # one: buckets must leave in order
        alive = [engine for engine, _ in self._updates.alive()]
        if alive and not (self._whole() and _same(self._members, alive)):
            self._regroup(alive)

    def post(self, tensors: NamedTensors) -> None:
        """Pack a bucket and have it sent after the one before."""
        slot = self._slots[0]
        self._settle(slot)
        if self._whole() and (takers := self._updates.alive()):
            self._updates.check(tensors)
            slot.bucket.fill(sorted(tensors, key=lambda item: -item[1].element_size()))  # so that all are aligned
            slot.bucket.settle()
            slot.delivery = self._sender_thread.submit(self._deliver, slot.bucket, takers)
        self._slots.reverse()

    def end(self) -> None:
        """Close the updates; without a whole group nobody has all of the weights."""
        for slot in self._slots:
            self._settle(slot)
        self._sender_thread.shutdown()
        self._slots = []
        if self._whole():
            self._updates.end()
        else:
            self._updates.abandon()

    def _whole(self) -> bool:
        return self._group is not None and self._group.joined and all(engine.alive for engine in self._members)

    def _regroup(self, engines: Sequence[Engine]) -> None:
        self._disband()
        self._members = list(engines)
        name = f"weights-{self._sender}-{secrets.token_hex(4)}"  # engines refuse a name that they have seen
        sizes = [engine.client.capabilities().tensor_parallel for engine in engines]
        address = (self._store.host, self._store.port)
        self._group = WeightGroup(name, sizes, address, self._backend, self._deadline_s)
        answers = [
            (engine, in_background(engine.client.post_checked, "/init_weights_update_group", invitation))
            for engine, invitation in zip(engines, self._group.invitations(), strict=True)
        ]
        try:
            self._group.join([answer for _, answer in answers])
        except GroupBroken as error:
            self._after_break(answers, error)
        log.info("weight_group=%s engines=%d ranks=%d backend=%s", name, len(sizes), 1 + sum(sizes), self._backend)

    def _disband(self) -> None:
        """Have everybody leave who is still there."""
        group, self._group = self._group, None
        if group is None:
            return
        body = {"group_name": group.name}
        answers = [
            (engine, in_background(engine.client.post_checked, "/destroy_weights_update_group", body))
            for engine in self._members
            if engine.alive
        ]
        group.leave()
        for engine, answer in answers:
            self._outcome(engine, answer)

    def _deliver(self, bucket: Bucket, takers: list[tuple[Engine, WeightUpdate]]) -> _Delivery:
        assert self._group is not None
        if not self._group.joined:  # broken meanwhile: an engine that is asked now would wait in vain
            return _Delivery([], GroupBroken("broken before"))
        name = self._group.name
        answers = [(engine, in_background(update.take_broadcast, bucket, name)) for engine, update in takers]
        try:
            self._group.broadcast(bucket.contents(), [answer for _, answer in answers])
        except GroupBroken as error:
            return _Delivery(answers, error)
        return _Delivery(answers)

    def _settle(self, slot: _Slot) -> None:
        """Until every engine has taken the bucket."""
        if slot.delivery is None:
            return
        delivery, slot.delivery = slot.delivery.result(), None
        if delivery.broken is None:
            self._updates.settle(delivery.answers)
        else:
            self._after_break(delivery.answers, delivery.broken)

    def _after_break(self, answers: Sequence[tuple[Engine, Future[Any]]], broken: GroupBroken) -> None:
        """Find out who is left. The others hear of it by an error, or hang and are given up."""
        log.warning("%s", broken)
        outcomes = [self._outcome(engine, answer) for engine, answer in answers]
        refusals = [error for error in outcomes if error is not None and not isinstance(error, EngineDied)]
        if refusals and len(refusals) == len(outcomes):
            raise refusals[0]  # nobody died: the request itself was wrong

    def _outcome(self, engine: Engine, answer: Future[Any]) -> EngineError | None:
        try:
            answer.result(GRACE_S)
        except TimeoutError:
            self._registry.mark_dead(engine, EngineTimeout(f"{engine.name} hangs in weight group {self._sender}"))
        except EngineDied as error:
            self._registry.mark_dead(engine, error)
            return error
        except EngineError as error:
            return error
        return None


def _same(some: Sequence[Engine], others: Sequence[Engine]) -> bool:
    """The same incarnations of the same engines: each is an object of its own."""
    return [id(one) for one in some] == [id(one) for one in others]
