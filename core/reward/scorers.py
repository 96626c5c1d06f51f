"""The scorer of one sample for each `reward.type`. Any float may be a reward; the ones made here lie in [0, 1].

What makes a *sample* fail (an exception) and what makes it *wrong* (0.0) is kept apart: an unusable label is a
failure, an unusable response is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from common.mistake import Wrong
from core.config.schema import RewardConfig
from core.plugins import FORMS, load_function
from core.reward.last_number import score_last_number
from core.reward.sample import RewardInput

Scorer = Callable[[RewardInput], float]


def build_scorer(config: RewardConfig) -> Scorer:
    """The function that scores a sample as `config` says. It may raise, hang or return anything: see `RewardPool`.

    The `math` scorer must be called in a process's main thread: math-verify limits itself by SIGALRM.

    Raises:
        ValueError: `pattern` or `path` is missing or unusable.
    """
    if config.type == "regex":
        return partial(_score_regex, _compile(config.pattern))
    if config.type == "python":
        if config.path is None:
            raise Wrong("no reward.path", FORMS, "add reward.path")
        return partial(load_function(config.path, "reward.path"), **config.options)
    if config.type == "math":
        from core.reward.math_equality import MathScorer

        return MathScorer(config.timeout_s)
    if config.type == "reasoning_gym":
        from core.reward.gym import score_reasoning_gym

        return score_reasoning_gym
    return {"exact": _score_exact, "last_number": score_last_number}[config.type]


def _score_exact(sample: RewardInput) -> float:
    """1.0 if the response equals the label, white space at both ends apart."""
    return float(sample.response_text.strip() == str(sample.label).strip())


def _score_regex(pattern: re.Pattern[str], sample: RewardInput) -> float:
    """1.0 if the first group of the pattern's first match (the match, if it has no groups) equals the label."""
    match = pattern.search(sample.response_text)
    found = match[min(1, pattern.groups)] if match else None
    return float(found is not None and found.strip() == str(sample.label).strip())


def _compile(pattern: str | None) -> re.Pattern[str]:
    if pattern is None:
        raise Wrong("no reward.pattern with reward.type regex", "a regular expression", "add reward.pattern")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"reward.pattern {pattern!r} is no regular expression: {error}") from error
