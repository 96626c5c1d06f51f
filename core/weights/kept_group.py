"""The process group of this rank and the engines that it sends weights to, kept from one sync to the next.

It stays as long as these engines live; one that was restarted gets into a new group. When an engine dies amid a
broadcast the group breaks: it is given up, and so are others that hang in it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from core.engines.roster import Engine, Engines
from core.processes.rendezvous import Address
from core.sglang.background import in_background
from core.sglang.errors import EngineDied, EngineError, EngineTimeout
from core.sglang.group import GroupBroken, WeightGroup
from core.sglang.payload import Bucket
from core.sglang.weights import WeightUpdate
from core.weights.receivers import Answer

GRACE_S = 10.0  # how long an engine may take to notice that its group is broken

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """A bucket that was sent, or why not all of it was."""

    answers: Sequence[Answer]
    broken: GroupBroken | None = None


class KeptGroup:
    """The group of a driver, kept from sync to sync. Collective: none."""

    def __init__(self, registry: Engines, store: Address, backend: str, sender: str, deadline_s: float) -> None:
        """Keep what a group is made with; nobody has joined yet.

        Args:
        store: the run's, where members of a group meet.
        backend: "nccl" or "gloo".
        sender: this rank's name, for logs.
        deadline_s: of a group to form, and of one bucket to arrive.
        """
        self._registry = registry
        self._store = store
        self._backend = backend
        self._sender = sender
        self._deadline_s = deadline_s
        self._members: list[Engine] = []
        self._group: WeightGroup | None = None

    @property
    def name(self) -> str | None:
        """The name under which its members have met, never used twice; None: there is no group."""
        return self._group.name if self._group is not None else None

    @property
    def whole(self) -> bool:
        """Whether the group stands and all its engines live."""
        return self._group is not None and self._group.joined and all(engine.alive for engine in self._members)

    def hold(self, engines: Sequence[Engine]) -> None:
        """Have these engines in the group: a new one is formed unless they are all of it. No engines: nothing to do."""
        if engines and not (self.whole and _same(self._members, engines)):
            self._regroup(engines)

    def send(self, bucket: Bucket, takers: Sequence[tuple[Engine, WeightUpdate]]) -> Sent:
        """Send a bucket to engines of the group; returns when it has left. May run in a thread."""
        if self._group is None or not self._group.joined:  # broken meanwhile: who is asked now would wait in vain
            return Sent([], GroupBroken("broken before"))
        name = self._group.name
        answers = [(engine, in_background(update.take_broadcast, bucket, name)) for engine, update in takers]
        try:
            self._group.broadcast(bucket.contents(), [answer for _, answer in answers])
        except GroupBroken as error:
            return Sent(answers, error)
        return Sent(answers)

    def after_break(self, answers: Sequence[tuple[Engine, Future[Any]]], broken: GroupBroken) -> None:
        """Find out who is left. The others hear of it by an error, or hang and are given up.

        Raises:
            EngineError: nobody died: the request itself was wrong.
        """
        log.warning("%s", broken)
        outcomes = [self._outcome(engine, answer) for engine, answer in answers]
        refusals = [error for error in outcomes if error is not None and not isinstance(error, EngineDied)]
        if refusals and len(refusals) == len(outcomes):
            raise refusals[0]

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
            self.after_break(answers, error)
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
