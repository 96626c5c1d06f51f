"""The reward of each evaluation set: its own in place of the run's, or the run's."""

from __future__ import annotations

from collections.abc import Iterator

from core.config.schema import RunConfig
from core.config.sections.eval import SetReward
from core.config.sections.reward import RewardConfig

OF_RUN = "reward"


def reward_of(config: RunConfig, name: str) -> RewardConfig:
    """What scores the samples of an evaluation set; of training, where `name` is empty.

    Time limits, processes and all else that a set does not say are the run's.
    """
    own = own_of(config, name)
    if own is None:
        return config.reward
    changes = {"type": own.type, "pattern": own.pattern, "options": own.options, "key": own.key, "path": None}
    return config.reward.model_copy(update=changes)


def own_of(config: RunConfig, name: str) -> SetReward | None:
    """What an evaluation set says of its reward; None: nothing. Of training, where `name` is empty."""
    return config.eval.sets[name].reward if name else None  # a rule of training alone may have no `eval`


def own_rewards(config: RunConfig) -> dict[str, RewardConfig]:
    """Rewards of the evaluation sets that have one of their own, by their names."""
    return {name: reward_of(config, name) for name, one in config.eval.sets.items() if one.reward is not None}


def place_of(config: RunConfig, name: str) -> str:
    """The section that says how an evaluation set is scored; of training, where `name` is empty."""
    return OF_RUN if own_of(config, name) is None else place_of_own(name)


def place_of_own(name: str) -> str:
    """The section of a set's own reward."""
    return f"eval.sets.{name}.reward"


def places(config: RunConfig) -> Iterator[tuple[str, RewardConfig]]:
    """Each section that says how samples are scored: the run's first."""
    yield OF_RUN, config.reward
    yield from ((place_of_own(name), reward) for name, reward in own_rewards(config).items())
