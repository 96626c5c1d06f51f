"""The function that `reward.type` names, of one sample. Any float may be a reward; the ones made here lie in [0, 1].

What makes a *sample* fail (an exception) and what makes it *wrong* (0.0) is kept apart: an unusable label is a
failure, an unusable response is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from common.mistake import Wrong
from core.config.sections.reward import RewardConfig
from core.config.set_rewards import place_of_own
from core.doors import REWARD, REWARD_PATH
from core.plugins import FORMS
from core.reward.label import refuse_misfit, same_text
from core.reward.sample import RewardInput

Scorer = Callable[[RewardInput], Any]  # a number, a mapping of numbers, or what to await for one


def build_scorer(config: RewardConfig) -> Scorer:
    """The function that scores a sample as `config` says. It may raise, hang or return anything: see `RewardPool`.

    The `math` scorer must be called in a process's main thread: math-verify limits itself by SIGALRM.

    Raises:
        ValueError: `pattern` or `path` is missing or unusable, or a function of the user's own does not fit.
    """
    if config.type == "python":
        if config.path is None:
            raise Wrong("no reward.path", FORMS, "add reward.path")
        return cast(Scorer, REWARD_PATH.build(config.path, config.options))
    settings = config.model_dump(exclude={"type", "path", "options"})
    return cast(Scorer, REWARD.build(config.type, config.options, settings))


def build_scorers(reward: RewardConfig, of_sets: Mapping[str, RewardConfig]) -> Scorer:
    """The run's scorer, and that of each evaluation set with a reward of its own, as one that asks the sample's.

    Raises:
        ValueError: as `build_scorer`; of a set's it names the set.
    """
    of_run = build_scorer(reward)
    by_set = {name: _of_set(name, one) for name, one in of_sets.items()}

    def score(sample: RewardInput) -> Any:
        return by_set.get(sample.evaluation, of_run)(sample)

    return score if by_set else of_run


def _of_set(name: str, reward: RewardConfig) -> Scorer:
    try:
        return build_scorer(reward)
    except ValueError as error:
        raise ValueError(f"{place_of_own(name)}: {error}") from error


def score_exact(sample: RewardInput) -> float:
    """1.0 if the response equals the label, white space at both ends apart; a number in a row is compared by value."""
    refuse_misfit(sample.label, "exact")
    return float(same_text(sample.response_text, sample.label))


class RegexScorer:
    """1.0 if the first group of the pattern's first match (the match, if it has no groups) equals the label."""

    def __init__(self, pattern: str | None) -> None:
        """Compile the pattern.

        Raises:
            ValueError: there is none, or it is no regular expression.
        """
        self._pattern = _compile(pattern)

    def __call__(self, sample: RewardInput) -> float:
        refuse_misfit(sample.label, "regex")
        match = self._pattern.search(sample.response_text)
        found = match[min(1, self._pattern.groups)] if match else None
        return float(found is not None and same_text(found, sample.label))


def _compile(pattern: str | None) -> re.Pattern[str]:
    if pattern is None:
        raise Wrong("no reward.pattern with reward.type regex", "a regular expression", "add reward.pattern")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"reward.pattern {pattern!r} is no regular expression: {error}") from error
