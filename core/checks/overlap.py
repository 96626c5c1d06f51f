"""A schedule that has trainers and engines work at the same time: not where they take turns on their GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.said import said
from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig
from core.doors import SCHEDULE
from core.residency.table import TABLE

PHASES = tuple(TABLE)


def overlapping_phases(config: RunConfig) -> Iterator[Mistake]:
    """Engines on the trainers' GPUs may have to leave them for an update: then nothing can be generated meanwhile."""
    placement = config.placement
    overlaps = said(SCHEDULE.place(placement.schedule)).own.get("overlaps", ())
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


def what_is_left_is_kept(config: RunConfig) -> Iterator[Mistake]:
    """A rollout that draws further rows, or leaves groups over, needs a schedule that takes its state from it."""
    rollout, schedule = config.rollout, config.placement.schedule
    if schedule in SCHEDULE.builtins or said(schedule).own.get("keeps_rest") is True:
        return
    asked = {"filter_rounds": rollout.filter_rounds > 1, "carry_over_tokens": rollout.carry_over_tokens is not None}
    for key in (key for key, is_asked in asked.items() if is_asked):
        found = f"{getattr(rollout, key)} with placement.schedule {schedule}"
        wanted = "a schedule that counts all rows that a rollout has drawn, and keeps what it has left over"
        remedy = f"set the state by state.after(made) in it, and say keeps_rest = True; or remove {key}"
        yield Mistake(f"rollout.{key}", None, found, wanted, remedy)


def may_take_turns(placement: PlacementConfig) -> bool:
    """Whether trainers and engines may give memory back to each other; `auto` depends on GPUs not known here."""
    if placement.engines != "colocated" or placement.offload == "off":
        return False
    return placement.offload == "on" or placement.device != "cpu"
