"""The engines as an owner: their memory is given back and taken again through SGLang's memory saver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from core.engines.roster import Engine, Engines
from core.residency.table import ENGINE, ENGINE_PARTS
from core.sglang.errors import EngineDied


class EngineOwner:
    """The engines on this rank's GPUs, if it drives them; without any it holds nothing.

    Weights that were given up are lost: the engine counts as never synced until the next sync.
    """

    name = ENGINE

    def __init__(self, engines: Engines, names: Collection[str]) -> None:
        """Own the memory of these engines.

        Args:
        names: the engines that share GPUs with trainer ranks; the others keep what they have.
        """
        self._engines = engines
        self._names = names

    def held(self) -> Mapping[str, int]:
        """Parts that some engine holds; their sizes are the engine's own affair."""
        held = {part for engine in self._here() for part in engine.client.resident_memory()}
        return {part: 0 for part in ENGINE_PARTS if part in held}

    def shrink_to(self, parts: frozenset[str]) -> None:
        """Release all other parts of every engine.

        Where nothing may stay, an engine that is being restarted is waited for, and none is started from then on.
        """
        if not parts:
            self._engines.forbid_starts(self._names)
        for engine in self._here():
            self._try(engine, partial(_release, engine, frozenset(ENGINE_PARTS) - parts))

    def grow_to(self, parts: frozenset[str]) -> None:
        """Resume the parts of every engine that lacks them. An engine starts with all of them, so it may now or not."""
        ordered = [part for part in ENGINE_PARTS if part in parts]
        if ordered == list(ENGINE_PARTS):
            self._engines.allow_starts()
        for engine in self._here():
            self._try(engine, partial(engine.client.resume_memory, ordered))

    def _here(self) -> list[Engine]:
        return [engine for engine in self._engines.alive() if engine.name in self._names]

    def _try(self, engine: Engine, act: Callable[[], None]) -> None:
        try:
            act()
        except EngineDied as error:
            self._engines.mark_dead(engine, error)


def _release(engine: Engine, parts: frozenset[str]) -> None:
    engine.client.release_memory([part for part in ENGINE_PARTS if part in parts])
    if "weights" in parts:
        engine.weight_version = None
