"""What one key of a run file implies for others that it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config.schema import RunConfig
from core.config.sections.section import Section
from core.doors import ROWS

Defaults = Mapping[str, Mapping[str, Any]]  # section -> key -> value

OF_ROWS: Defaults = {
    "data": {"label_key": None},
    "rollout": {"n_samples_per_prompt": 1},
    "algorithm": {"advantage_estimator": "none", "loss": "sft"},
    "placement": {"engines": "none"},
}
"""Other defaults where `rollout.generate` is rows: nothing is sampled, and nothing scored."""

OF_EVALUATION: Defaults = {"placement": {"schedule": "evaluate"}, "checkpoint": {"save_hf": "off"}}
"""Other defaults where `placement.trainers` is none: nothing is trained, so there is nothing to save."""


def with_implied(config: RunConfig) -> RunConfig:
    """`config` with these other defaults. A section that `config` lacks (it had mistakes) is passed over."""
    if hasattr(config, "placement") and config.placement.trainers == "none":
        config = config.model_copy(update=_changed(config, OF_EVALUATION))
    if not hasattr(config, "rollout") or config.rollout.generate != ROWS:
        return config
    changed = _changed(config, OF_ROWS)
    if hasattr(config, "eval"):
        sets = {name: _filled(data, OF_ROWS["data"]) for name, data in config.eval.sets.items()}
        changed["eval"] = config.eval.model_copy(update={"sets": sets})
    return config.model_copy(update=changed)


def _changed(config: RunConfig, defaults: Defaults) -> dict[str, Any]:
    present = {name: getattr(config, name) for name in defaults if hasattr(config, name)}
    return {name: _filled(section, defaults[name]) for name, section in present.items()}


def _filled(section: Section, defaults: Mapping[str, Any]) -> Section:
    return section.model_copy(
        update={key: value for key, value in defaults.items() if key not in section.model_fields_set}
    )
