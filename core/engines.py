"""The engines that this rank drives: found by rendezvous, followed through restarts, marked dead when they fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from core.rendezvous import Member, Rendezvous, wait_until
from core.sglang.client import EngineClient
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

    def __init__(self, rendezvous: Rendezvous, names: list[str], vocab_size: int, api_key: str, start_s: float) -> None:
        """Args:
        names: the engines to drive, as the node agent publishes them.
        vocab_size: token ids at or above it are refused before they reach an engine.
        start_s: deadline for an engine to be up, at the beginning and after a restart.
        """
        self._rendezvous = rendezvous
        self._vocab_size = vocab_size
        self._api_key = api_key
        self._start_s = start_s
        self._names = names
        self._engines: dict[str, Engine] = {}

    def start(self) -> None:
        """Wait until every engine of this node answers.

        Raises:
            EngineDied: if one does not within the deadline; the message names it.
        """
        for name in self._names:
            self._connect(self._rendezvous.wait("engine", [name], self._start_s)[0])

    def alive(self) -> list[Engine]:
        """Engines that may be asked to generate."""
        return [engine for engine in self._engines.values() if engine.alive]

    def mark_dead(self, engine: Engine, reason: EngineDied) -> None:
        """Ask nothing more of this incarnation; its restart is another engine."""
        if engine.alive:
            log.warning("engine=%s pid=%d died: %s", engine.name, engine.member.pid, reason)
        engine.alive = False
        engine.weight_version = None

    def adopt_restarted(self, wait: bool) -> None:
        """Take over engines that their agent has restarted.

        Args:
            wait: wait for the dead ones (nothing else is left to work with) instead of taking who is there already.
        Raises:
            EngineDied: if `wait` and a dead engine is not back within the deadline.
        """
        for engine in list(self._engines.values()):
            if engine.alive:
                continue
            if wait:
                wait_until(lambda e=engine: self._successor(e) is not None, self._start_s)  # type: ignore[misc]
            successor = self._successor(engine)
            if successor is not None:
                self._connect(successor)
            elif wait:
                raise EngineDied(f"engine {engine.name} died and was not restarted within {self._start_s:.0f} s")

    def _successor(self, engine: Engine) -> Member | None:
        member = self._rendezvous.lookup("engine", engine.name)
        return member if member and member.incarnation > engine.member.incarnation else None

    def _connect(self, member: Member) -> None:
        client = EngineClient(member.url, api_key=self._api_key, vocab_size=self._vocab_size)
        client.wait_healthy(self._start_s, alive=lambda: self._is_current(member))
        self._engines[member.name] = Engine(member.name, member, client)
        self._rendezvous.set(f"engine-ready/{member.name}", str(member.incarnation))  # from now on a death is restarted
        log.info("engine=%s url=%s incarnation=%d ready", member.name, member.url, member.incarnation)

    def _is_current(self, member: Member) -> bool:
        published = self._rendezvous.lookup("engine", member.name)
        return published is not None and published.incarnation == member.incarnation
