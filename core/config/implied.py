"""What one key of a run file implies for others that it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config.schema import RunConfig, Section
from core.doors import ROWS

OF_ROWS: Mapping[str, Mapping[str, Any]] = {
    "data": {"label_key": None},
    "rollout": {"n_samples_per_prompt": 1},
    "algorithm": {"advantage_estimator": "none", "loss": "sft"},
    "placement": {"engines": "none"},
}
"""Section -> key -> default where `rollout.generate` is rows: nothing is sampled, and nothing scored."""


def with_implied(config: RunConfig) -> RunConfig:
    """`config` with these other defaults. A section that `config` lacks (it had mistakes) is passed over."""
    if not hasattr(config, "rollout") or config.rollout.generate != ROWS:
        return config
    present = {name: getattr(config, name) for name in OF_ROWS if hasattr(config, name)}
    changed: dict[str, Any] = {name: _filled(section, OF_ROWS[name]) for name, section in present.items()}
    if hasattr(config, "eval"):
        sets = {name: _filled(data, OF_ROWS["data"]) for name, data in config.eval.sets.items()}
        changed["eval"] = config.eval.model_copy(update={"sets": sets})
    return config.model_copy(update=changed)


def _filled(section: Section, defaults: Mapping[str, Any]) -> Section:
    return section.model_copy(
        update={key: value for key, value in defaults.items() if key not in section.model_fields_set}
    )
