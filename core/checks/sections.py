"""The sections of a run file that name rows."""

from __future__ import annotations

from core.config.schema import DataConfig, RunConfig


def data_sections(config: RunConfig) -> dict[str, DataConfig]:
    """Key of the run file -> section: the training rows first, then the evaluation sets."""
    return {"data": config.data, **{f"eval.sets.{name}": data for name, data in config.eval.sets.items()}}
