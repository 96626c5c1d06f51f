"""The section `checkpoint` of a run file."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from common.duration import seconds_of
from common.mistake import Wrong, show
from core.config.sections.section import AutoOnOff, NonNegativeInt, PositiveInt, Section

EVERY = "every "  # of `save_hf`
AUTO = "auto"  # of `checkpoint.every`


def _auto_or_duration(value: Any) -> Any:
    """A time as a person writes it, or the word for the shortest that is cheap."""
    if value not in (None, AUTO) and (not isinstance(value, str) or seconds_of(value) is None):
        raise Wrong(repr(value), "auto, or a time such as 90s, 30m or 2h", "give auto, a number and its unit, or null")
    return value


def _end_off_or_every(value: Any) -> Any:
    """A time at which models are written. True and False are older spellings; YAML reads a bare off as false."""
    if isinstance(value, bool):
        return "end" if value else "off"
    if value in ("end", "off"):
        return value
    if not isinstance(value, str) or not re.fullmatch(EVERY + r"[1-9]\d*", value):
        raise Wrong(show(value), "end, off, or `every N`, N steps", "write e.g. every 20")
    return value


class CheckpointConfig(Section):
    """Times at which the run is saved. A last checkpoint is always written at the end."""

    interval: NonNegativeInt = Field(0, description="steps between checkpoints; 0: none by steps")
    every: Annotated[str | None, BeforeValidator(_auto_or_duration)] = Field(
        AUTO,
        description="time between checkpoints, beside `interval`: 90s, 30m, 2h; longer where steps would wait for them "
        "more than 5 % of the time, or files be written more than a quarter of it; auto: as short as that allows, so "
        "after every step where it is cheap; null: none "
        "by time",
    )
    asynchronous: AutoOnOff = Field(
        "auto",
        description="the run goes on while a checkpoint is written, from copies in host memory; auto: where that has "
        "room for them",
    )
    keep: PositiveInt = Field(2, description="how many to keep")
    save_hf: Annotated[str, BeforeValidator(_end_off_or_every)] = Field(
        "end",
        description="when the model is written as a HuggingFace directory too. end: after the last step, to hf/; "
        "`every N`: also with a checkpoint after every N steps, to hf_steps/, where all are kept; off: never "
        "(`ebbtide export` makes one of any checkpoint)",
    )

    @property
    def every_s(self) -> float | None:
        """Seconds between checkpoints that come by the clock, at least; None: none do."""
        return 0.0 if self.every == AUTO else seconds_of(self.every) if self.every else None

    @property
    def model_interval(self) -> int:
        """Steps between models that are written while the run goes on; 0: there are none."""
        return int(self.save_hf.removeprefix(EVERY)) if self.save_hf.startswith(EVERY) else 0

    @property
    def model_at_end(self) -> bool:
        """Whether the model is written after the last step."""
        return self.save_hf != "off"
