"""Engines of a driver without servers behind them, for tests of how weights get to engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.engines.roster import Engine
from core.processes.rendezvous import Member
from core.sglang.errors import EngineDied


class FakeEngines:
    """As `core.engines.roster.Engines`: who lives, and who is found dead."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        """Args: hosts: of each engine."""
        client: Any = None
        self.engines = [Engine(name, Member("engine", name, 0, host, 1), client) for name, host in hosts.items()]

    def adopt_restarted(self) -> None:
        pass

    def alive(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.alive]

    def mark_dead(self, engine: Engine, reason: EngineDied) -> None:
        engine.alive = False
