"""A schedule that has trainers and engines work at the same time: not where they take turns on their GPUs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.mistake import Mistake
from core.checks.function import definition
from core.config.schema import PlacementConfig, RunConfig
from core.doors import SCHEDULE
from core.plugins import split_function
from core.residency.table import TABLE

PHASES = tuple(TABLE)


def overlapping_phases(config: RunConfig) -> Iterator[Mistake]:
    """Engines on the trainers' GPUs may have to leave them for an update: then nothing can be generated meanwhile."""
    placement = config.placement
    overlaps = said_overlaps(SCHEDULE.place(placement.schedule))
    if not overlaps:
        return
    if not isinstance(overlaps, tuple | list) or not all(phase in PHASES for phase in overlaps):
        found = f"overlaps = {overlaps!r} of {placement.schedule}"
        wanted = f"names of phases: {', '.join(PHASES)}"
        yield Mistake(SCHEDULE.key, None, found, wanted, 'write them as in ("rollout", "update")')
    elif may_take_turns(placement):
        found = f"{placement.schedule}, which overlaps {' and '.join(overlaps)}"
        wanted = "trainers and engines that do not take turns on their GPUs"
        remedy = "set placement.engines to own_gpus, or placement.offload to off (or placement.device to cpu)"
        yield Mistake(SCHEDULE.key, None, found, wanted, remedy)


def may_take_turns(placement: PlacementConfig) -> bool:
    """Whether trainers and engines may give memory back to each other; `auto` depends on GPUs not known here."""
    if placement.engines != "colocated" or placement.offload == "off":
        return False
    return placement.offload == "on" or placement.device != "cpu"


def said_overlaps(path: str) -> Any:
    """The constant `overlaps` of a class, or `NAME.overlaps` below a function; () where the text says nothing."""
    found, (place, name) = definition(path), split_function(path)
    if isinstance(found, ast.ClassDef):
        return _assigned(found.body, "overlaps")
    if found is None or not place.endswith(".py"):
        return ()
    return _assigned(ast.parse(Path(place).read_bytes()).body, f"{name}.overlaps")


def _assigned(body: list[ast.stmt], target: str) -> Any:
    for node in body:
        if isinstance(node, ast.Assign) and target in [ast.unparse(one) for one in node.targets]:
            try:
                return ast.literal_eval(node.value)
            except ValueError:  # computed: the run itself looks again
                return ()
    return ()
