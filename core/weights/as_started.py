"""Engines that nobody sends weights: they have those of the model's files, which they read when they started."""

from __future__ import annotations

from core.engines.roster import Engine, Engines
from core.processes.collective import any_rank
from core.sglang.errors import EngineDied
from core.sglang.weights import stamp


class WeightsAsStarted:
    """A sync that sends nothing: it only tells engines the version that they report with their samples."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    def push(self, version: str) -> bool:
        """Have every live engine of every node report `version`.

        Returns:
            whether any engine did not yet.
        Collective: all trainer ranks.
        """
        self._engines.adopt_restarted()
        new = [engine for engine in self._engines.alive() if engine.weight_version != version]
        for engine in new:
            self._stamp(engine, version)
        return any_rank(bool(new))

    def _stamp(self, engine: Engine, version: str) -> None:
        try:
            stamp(engine.client, version)
        except EngineDied as error:
            self._engines.mark_dead(engine, error)
        else:
            engine.weight_version = version
