"""The sections of a run file that name rows."""

from __future__ import annotations

from core.config.schema import RunConfig
from core.config.sections.data import DataConfig

SETS = "eval.sets."


def name_of_set(key: str) -> str:
    """The evaluation set at `key`; empty: it is the training rows that are there."""
    return key.removeprefix(SETS) if key.startswith(SETS) else ""


def data_sections(config: RunConfig) -> dict[str, DataConfig]:
    """Key of the run file -> section: the training rows first, if something is trained, then the evaluation sets."""
    sets: dict[str, DataConfig] = {f"{SETS}{name}": data for name, data in config.eval.sets.items()}
    placement = getattr(config, "placement", None)  # it may have had mistakes
    trains = placement is None or placement.trainers != "none"
    return {"data": config.data, **sets} if trains else sets
