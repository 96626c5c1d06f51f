"""Moment of a run: a phase, and the step it belongs to. Progress events, the store and failure records have both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """A phase and its step; the step is None before the first one has begun."""

    phase: str = "start"
    step: int | None = None

    def __str__(self) -> str:
        return self.phase if self.step is None else f"{self.phase} of step {self.step}"

    def fields(self) -> dict[str, Any]:
        """The two fields of an event or a record: {"phase": "rollout", "step": 3}."""
        return asdict(self)

    def to_json(self) -> str:
        """Text for the store."""
        return json.dumps(self.fields())


def moment_of(fields: Mapping[str, Any]) -> Moment:
    """The moment that an event or a record tells of.

    Earlier versions wrote one text, {"phase": "rollout step=3"}; their run directories can still be read and resumed.
    """
    phase, _, step = str(fields["phase"]).partition(" step=")
    return Moment(phase, int(step)) if step.isdigit() else Moment(phase, fields.get("step"))


def moment_from_json(text: str | None) -> Moment:
    """Read what `to_json` wrote; the start, where nothing was written yet."""
    return Moment() if text is None else moment_of(json.loads(text))
