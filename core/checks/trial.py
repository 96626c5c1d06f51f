"""A user's own reward, called once before anything starts: what its text does not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from common.mistake import Mistake
from core.checks.sections import data_sections, name_of_set
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.config.sections.reward import RewardConfig
from core.config.set_generation import own_generations
from core.config.set_rewards import places, reward_of
from core.doors import ONE_TURN
from core.processes.user_process import WorkerStartError
from core.reward.trial import Trial, try_reward

NOT_INSTALLED = "ModuleNotFoundError"  # of a package that the nodes may have, where this machine has it not


class Tried(NamedTuple):
    """A reward, the key that names it, and the sections whose first rows it is called with."""

    key: str
    reward: RewardConfig
    sections: dict[str, DataConfig]


def reward_trial(config: RunConfig) -> tuple[Trial | None, list[Mistake]]:
    """Call the rewards on the first row of the training data and of each evaluation set that they are of.

    Args:
        config: a run file without other mistakes.
    Returns:
        what came of it, None if no reward can be made; and what is wrong.
    """
    trials: list[Trial] = []
    mistakes: list[Mistake] = []
    for one in _tried(config):
        try:
            trial = try_reward(one.reward, one.sections, config.rollout.max_response_tokens)
        except WorkerStartError as error:
            wanted, remedy = "one that can be made and called", "correct it, and see docs/doors.md"
            mistakes.append(Mistake(one.key, None, f"a reward that cannot be made ({error})", wanted, remedy))
            continue
        trials.append(trial)
        mistakes += _failures(one.key, trial)
    answers = tuple(answer for trial in trials for answer in trial.answers)
    return Trial(sum(trial.ready_s for trial in trials), answers) if trials else None, mistakes


def is_own(config: RunConfig) -> bool:
    """Whether a reward of the run is a user's function."""
    return any(reward.type == "python" or ":" in reward.type for _, reward in places(config))


def can_be_tried(config: RunConfig) -> bool:
    """Whether a row and a text are all that the reward is given; only one turn adds nothing to a sample."""
    made = (config.rollout, *own_generations(config).values())
    return all(one.generate == ONE_TURN for one in made)


def _tried(config: RunConfig) -> list[Tried]:
    """The run's reward first, as every scoring process makes it; alike ones of evaluation sets are tried once."""
    found: dict[str, Tried] = {}
    for place, reward in places(config):
        key = f"{place}.path" if reward.type == "python" else f"{place}.type"
        found.setdefault(repr(reward), Tried(key, reward, {}))
    for section, data in data_sections(config).items():
        found[repr(reward_of(config, name_of_set(section)))].sections[section] = data
    return list(found.values())


def _failures(key: str, trial: Trial) -> Iterator[Mistake]:
    for answer in trial.failed():
        found = f"{answer.score.failure}, called with the first row of {answer.source} and {answer.response}"
        remedy = "correct it; of a response that it cannot read let it say 0.0"
        yield Mistake(key, None, found, "a number for each response", remedy)
