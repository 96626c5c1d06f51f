"""The engines that receive one version, each with its update: what the transports have in common."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from core.engines.roster import Engine, Engines
from core.sglang.background import in_background
from core.sglang.errors import EngineDied
from core.sglang.payload import NamedTensors
from core.sglang.weights import WeightUpdate

Answer = tuple[Engine, "Future[None]"]


class Receivers:
    """One open update per engine. An engine that dies is marked dead and left out; a refusal is raised."""

    def __init__(self, registry: Engines, engines: Sequence[Engine], version: str) -> None:
        self._registry = registry
        self._version = version
        self._updates = [(engine, WeightUpdate(engine.client, version)) for engine in engines]

    def begin(self) -> None:
        """Open the updates."""
        self.settle(self.opening())

    def opening(self) -> list[Answer]:
        """Open the updates, all at the same time; returns at once."""
        return [(engine, in_background(update.begin)) for engine, update in self.alive()]

    def alive(self) -> list[tuple[Engine, WeightUpdate]]:
        """Engines that still take part, with their updates."""
        return [(engine, update) for engine, update in self._updates if engine.alive]

    def check(self, tensors: NamedTensors) -> None:
        """Tick the tensors off before they are sent; raises WeightsRefused."""
        for _, update in self.alive():
            update.check(tensors)

    def settle(self, answers: Sequence[Answer]) -> None:
        """Wait for what was posted."""
        for engine, answer in answers:
            try:
                answer.result()
            except EngineDied as error:
                self._registry.mark_dead(engine, error)

    def end(self) -> None:
        """Close the updates: from here on the engines have the version."""
        self.settle([(engine, in_background(update.end)) for engine, update in self.alive()])
        for engine, _ in self.alive():
            engine.weight_version = self._version

    def abandon(self) -> None:
        """Close the updates half done: the engines stay stale, and take another one."""
        self.settle([(engine, in_background(update.abandon)) for engine, update in self.alive()])
        for engine, _ in self._updates:
            engine.weight_version = None
