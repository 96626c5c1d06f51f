"""The engines that this rank drives: found by rendezvous, followed through restarts, marked dead when they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from common.waiting import wait_until
from core.engines import starts as engine_starts
from core.engines.starts import Start, last_start
from core.processes import keys
from core.processes.rendezvous import Member, Rendezvous
from core.sglang.client import EngineClient, Timeouts
from core.sglang.errors import EngineDied

log = logging.getLogger(__name__)


@dataclass
class Engine:
    """One engine of this node, as its driver sees it."""

    name: str
    member: Member
    client: EngineClient
    weight_version: str | None = None  # None: not synced since it started
    alive: bool = True


class Engines:
    """The engines of one node. Only the node's driver rank holds some; elsewhere the list is empty."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        names: list[str],
        *,
        vocab_size: int,
        api_key: str,
        start_s: float,
        request_s: float,
        prompt_first_tokens: int = 0,
    ) -> None:
        """Keep the settings; no engine is contacted yet.

        Args:
        names: the engines to drive, as the node agent publishes them.
        vocab_size: token ids at or above it are refused before they reach an engine.
        start_s: deadline for an engine to be up, at the beginning and after a restart.
        request_s: deadline of one generation request.
        prompt_first_tokens: as of EngineClient.
        """
        self._request_s = request_s
        self._prompt_first_tokens = prompt_first_tokens
        self._rendezvous = rendezvous
        self._vocab_size = vocab_size
        self._api_key = api_key
        self._start_s = start_s
        self._names = names
        self._engines: dict[str, Engine] = {}
        self._forbidden: set[str] = set()  # engines that may not be started again now

    def start(self) -> None:
        """Wait until every engine of this node answers. One that dies or hangs before that is replaced by its agent.

        Raises:
            RendezvousTimeout, EngineDied: if one does not within the deadline; the message names it.
        """
        published = self._rendezvous.wait("engine", self._names, self._start_s)
        ends = time.monotonic() + self._start_s
        for member in published:
            self._take_first(member, ends)

    def alive(self) -> list[Engine]:
        """Engines that may be asked to generate."""
        return [engine for engine in self._engines.values() if engine.alive]

    def mark_dead(self, engine: Engine, reason: EngineDied) -> None:
        """Ask nothing more of this incarnation, and have its agent end it in case it only hangs."""
        if engine.alive:
            log.warning("engine=%s pid=%d died: %s", engine.name, engine.member.pid, reason)
            self._rendezvous.set(keys.server_condemned(engine.name), str(engine.member.incarnation))
        engine.alive = False
        engine.weight_version = None

    def adopt_restarted(self) -> None:
        """Take over restarted engines that answer already."""
        for engine in self._dead():
            successor = self._successor(engine)
            if successor is not None and self._answers(successor):
                self._take(successor)

    def await_restarted(self) -> None:
        """Wait for the restart of every dead engine. A restart that fails or hangs is replaced by its agent, too.

        Raises:
            EngineDied: if one is not back within the deadline.
        """
        ends = time.monotonic() + self._start_s
        for engine in self._dead():
            wait_until(partial(self._has_successor, engine), ends - time.monotonic())
            successor = self._successor(engine)
            if successor is None:
                raise EngineDied(f"engine {engine.name} died and was not restarted within {self._start_s:.0f} s")
            self._take_first(successor, ends)

    def forbid_starts(self, names: Collection[str]) -> None:
        """Forbid further starts of these engines, and wait for an engine that is starting already.

        Raises:
            EngineDied: one neither ends nor comes up within the deadline: nobody knows what it holds.
        """
        ours = [engine for engine in self._engines.values() if engine.name in names]
        new = [engine.name for engine in ours if engine.name not in self._forbidden]
        for name in new:
            engine_starts.forbid_starts(self._rendezvous, name)
        self._forbidden.update(new)
        for engine in ours:
            if engine.name in new or not engine.alive:
                self._settle(engine)

    def allow_starts(self) -> None:
        """Undo `forbid_starts`."""
        for name in self._forbidden:
            engine_starts.allow_starts(self._rendezvous, name)
        self._forbidden.clear()

    def _settle(self, engine: Engine) -> None:
        """Wait until it is certain that the engine lives, or that it has ended and is not being started."""
        if engine.alive and self._start_after(engine) is None:
            return
        if not wait_until(partial(self._is_decided, engine), self._start_s):
            raise EngineDied(f"engine {engine.name} neither ended nor was restarted within {self._start_s:.0f} s")
        self.mark_dead(engine, EngineDied("its agent says so"))
        start, successor = self._start_after(engine), self._successor(engine)
        if successor is None or start is None or start.held:
            return
        try:
            self._take(successor, alive=partial(self._is_last, successor))
        except EngineDied as error:
            if self._is_last(successor):
                raise
            log.warning("engine=%s incarnation=%d did not start: %s", engine.name, successor.incarnation, error)

    def _is_decided(self, engine: Engine) -> bool:
        """Whether the engine has ended, and its successor is held back or published."""
        start, successor = self._start_after(engine), self._successor(engine)
        if start is None or start.held:
            return start is not None
        return successor is not None and successor.incarnation == start.incarnation

    def _start_after(self, engine: Engine) -> Start | None:
        """What the agent says of a later incarnation; None: this one has not ended."""
        start = last_start(self._rendezvous, engine.name)
        return start if start is not None and start.incarnation > engine.member.incarnation else None

    def _is_last(self, member: Member) -> bool:
        start = last_start(self._rendezvous, member.name)
        return start is not None and start.incarnation == member.incarnation

    def _dead(self) -> list[Engine]:
        return [engine for engine in self._engines.values() if not engine.alive]

    def _has_successor(self, engine: Engine) -> bool:
        return self._successor(engine) is not None

    def _successor(self, engine: Engine) -> Member | None:
        member = self._rendezvous.lookup("engine", engine.name)
        return member if member and member.incarnation > engine.member.incarnation else None

    def _answers(self, member: Member) -> bool:
        try:
            return self._client(member).health()
        except EngineDied:
            return False

    def _take_first(self, member: Member, ends: float) -> None:
        """Take this incarnation, or the first later one that answers. Each has half of the time, or it is given up."""
        while True:
            try:
                return self._take(member, min(self._start_s / 2, ends - time.monotonic()))
            except EngineDied as error:
                if time.monotonic() >= ends:
                    raise
                log.warning("engine=%s incarnation=%d did not start: %s", member.name, member.incarnation, error)
                self._rendezvous.set(keys.server_condemned(member.name), str(member.incarnation))
                wait_until(partial(self._is_replaced, member), ends - time.monotonic())
                member = self._rendezvous.wait("engine", [member.name], self._start_s)[0]

    def _take(self, member: Member, deadline_s: float | None = None, alive: Callable[[], bool] | None = None) -> None:
        """Wait until it answers, then count it among the living."""
        client = self._client(member)
        client.wait_healthy(deadline_s or self._start_s, alive or partial(self._is_current, member))
        self._engines[member.name] = Engine(member.name, member, client)
        self._rendezvous.set(keys.server_ready(member.name), str(member.incarnation))
        log.info("engine=%s url=%s incarnation=%d ready", member.name, member.url, member.incarnation)

    def _client(self, member: Member) -> EngineClient:
        timeouts = Timeouts(generate_s=self._request_s)
        least = self._prompt_first_tokens
        return EngineClient(member.url, self._api_key, self._vocab_size, timeouts, prompt_first_tokens=least)

    def _is_replaced(self, member: Member) -> bool:
        return not self._is_current(member)

    def _is_current(self, member: Member) -> bool:
        published = self._rendezvous.lookup("engine", member.name)
        return published is not None and published.incarnation == member.incarnation
