"""A user's own reward, called once before anything starts: what its text does not show."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.sections import data_sections
from core.config.schema import RunConfig
from core.doors import ONE_TURN
from core.processes.user_process import WorkerStartError
from core.reward.trial import Trial, try_reward

NOT_INSTALLED = "ModuleNotFoundError"  # of a package that the nodes may have, where this machine has it not


def reward_trial(config: RunConfig) -> tuple[Trial | None, list[Mistake]]:
    """Call the run's reward on the first row of its training data and of each evaluation set.

    Args:
        config: a run file without other mistakes.
    """
    try:
        trial = try_reward(config.reward, data_sections(config), config.rollout.max_response_tokens)
    except WorkerStartError as error:
        wanted, remedy = "one that can be made and called", "correct it, and see docs/doors.md"
        return None, [Mistake(reward_key(config), None, f"a reward that cannot be made ({error})", wanted, remedy)]
    return trial, list(_failures(config, trial))


def is_own(config: RunConfig) -> bool:
    """Whether the reward is a user's function."""
    return config.reward.type == "python" or ":" in config.reward.type


def can_be_tried(config: RunConfig) -> bool:
    """Whether a row and a text are all that the reward is given; only one turn adds nothing to a sample."""
    return config.rollout.generate == ONE_TURN


def reward_key(config: RunConfig) -> str:
    """The key that names the reward."""
    return "reward.path" if config.reward.type == "python" else "reward.type"


def _failures(config: RunConfig, trial: Trial) -> Iterator[Mistake]:
    for answer in trial.failed():
        found = f"{answer.score.failure}, called with the first row of {answer.source} and {answer.response}"
        remedy = "correct it; of a response that it cannot read let it say 0.0"
        yield Mistake(reward_key(config), None, found, "a number for each response", remedy)
