"""How responses of each evaluation set are made: as the set says, or as those of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config.schema import RunConfig
from core.config.sections.rollout import RolloutConfig

OF_DIALOGUE: Mapping[str, Any] = {"tools": [], "environment": None, "environment_options": {}}
"""Keys of a dialogue, which a set that says how it is generated has none of."""


def generation_of(config: RunConfig, name: str) -> RolloutConfig:
    """The section that says how an evaluation set is generated; of training, where `name` is empty.

    Processes, time limits and all else that a set does not say are the run's.
    """
    return own_generations(config).get(name, config.rollout)


def own_generations(config: RunConfig) -> dict[str, RolloutConfig]:
    """Sections of the evaluation sets that say it themselves, by their names."""
    return {
        name: config.rollout.model_copy(
            update={**OF_DIALOGUE, "generate": one.generate, "generate_options": one.generate_options}
        )
        for name, one in config.eval.sets.items()
        if one.generate is not None
    }
