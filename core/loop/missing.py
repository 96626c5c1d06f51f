"""Parts that a run without trainers, or without engines, does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from common.mistake import Wrong
from core.loop.state import LoopState


class Missing:
    """A part that is not there: whatever a schedule asks of it is refused."""

    def __init__(self, part: str, why: str, remedy: str) -> None:
        """Keep what to say.

        Args:
            part: its name in `Parts`.
            why: the key that says so: `placement.trainers: none`.
        """
        self._said = (part, why, remedy)

    def __getattr__(self, name: str) -> Any:
        part, why, remedy = self._said

        def refuse(*_arguments: object, **_options: object) -> NoReturn:
            raise Wrong(f"a call of {part}.{name}, where {why}", f"a schedule that needs no {part}", remedy)

        return refuse


class NothingToSave:
    """Checkpoints of a run that trains nothing: none is due, and a pause leaves nothing."""

    def due(self, _step: int) -> bool:
        """Never."""
        return False

    def ensure(self, _state: LoopState) -> None:
        """Do nothing."""

    def wait(self, _timeout_s: float | None = None) -> None:
        """Do nothing."""

    def save(self, _state: LoopState) -> Path:
        """Refuse.

        Raises:
            Wrong: always.
        """
        remedy = "leave save out, or set placement.trainers to megatron"
        raise Wrong("a call of checkpoints.save, where nothing is trained", "a schedule that saves nothing", remedy)
