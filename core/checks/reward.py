"""The reward: what its type needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from common.mistake import Mistake
from core.checks.doors import check_door
from core.checks.function import definition, python_function
from core.checks.sections import data_sections
from core.config.schema import RewardConfig, RunConfig
from core.doors import REWARD, REWARD_PATH
from core.plugins import FORMS, split_function
from core.reward.label import WANTED

NEEDS_LABEL = tuple(WANTED)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def overlong_buffer(config: RunConfig) -> Iterator[Mistake]:
    """The penalty on long responses begins within the limit."""
    buffer, limit = config.reward.overlong_buffer_tokens, config.rollout.max_response_tokens
    if buffer is not None and buffer > limit:
        found, wanted = f"{buffer} tokens", f"at most rollout.max_response_tokens, {limit}"
        yield Mistake("reward.overlong_buffer_tokens", None, found, wanted, "lower it: a fifth of the limit is usual")


def settings(config: RunConfig) -> Iterator[Mistake]:
    """The type is known or names a function; `regex` has a pattern with a group, and each what it needs alone."""
    reward = config.reward
    own = ":" in reward.type
    if reward.type == "regex":
        yield from _pattern(reward.pattern)
    elif reward.pattern is not None and not own:
        yield _unused("pattern", reward.type, "regex")
    if reward.type == "python":
        yield from _function_at_path(reward)
        return
    if reward.path is not None:
        yield _unused("path", reward.type, "python")
    if reward.options and not own:
        yield _unused("options", reward.type, "a function of your own")
    door = replace(REWARD, builtins={**REWARD.builtins, "python": ""})
    taken = reward.model_dump(exclude={"type", "path", "options"})
    yield from check_door(door, reward.type, reward.options if own else {}, taken)
    if own:
        yield from _no_generator("reward.type", reward.type)


def _function_at_path(reward: RewardConfig) -> Iterator[Mistake]:
    if reward.path is None:
        yield Mistake("reward.path", None, "nothing, with reward.type python", FORMS, "add reward.path")
        return
    mistakes = list(python_function("reward.path", reward.path))
    yield from mistakes
    if not mistakes:
        yield from check_door(REWARD_PATH, reward.path, reward.options)
        yield from _no_generator("reward.path", reward.path)


def _no_generator(key: str, path: str) -> Iterator[Mistake]:
    """A function with a `yield` of its own gives a generator, whatever it yields."""
    found = None if list(python_function(key, path)) else definition(path)
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    inside = [node for node in ast.walk(found) if node is not found and isinstance(node, FUNCTIONS)]
    inner = {one for node in inside for one in ast.walk(node)}
    if any(isinstance(node, ast.Yield | ast.YieldFrom) and node not in inner for node in ast.walk(found)):
        place, name = split_function(path)
        wanted = "a function that returns its reward"
        yield Mistake(
            key, None, f"a generator: {name} of {place} has a yield", wanted, "write return in place of yield"
        )


def reasoning_gym_scores_its_own(config: RunConfig) -> Iterator[Mistake]:
    """The scorer of a reasoning_gym dataset needs the entry that the dataset made."""
    if config.reward.type != "reasoning_gym":
        return
    for key, data in data_sections(config).items():
        if data.source != "reasoning_gym":
            remedy = "use a reasoning_gym dataset, or another reward.type"
            found = f"{data.source} with reward.type reasoning_gym"
            yield Mistake(f"{key}.source", None, found, "reasoning_gym, whose entries that reward scores", remedy)


def _pattern(pattern: str | None) -> Iterator[Mistake]:
    wanted = "a regular expression with a group around the answer"
    if pattern is None:
        remedy = "add reward.pattern, e.g. 'answer is (\\d+)'"
        yield Mistake("reward.pattern", None, "nothing, with reward.type regex", wanted, remedy)
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        yield Mistake("reward.pattern", None, f"{pattern!r}, which does not compile ({error})", wanted, "correct it")
        return
    if groups == 0:
        remedy = "put the part that is compared with the label in parentheses"
        yield Mistake("reward.pattern", None, f"{pattern!r}, which has no group", wanted, remedy)


def _unused(key: str, found: str, only: str) -> Mistake:
    remedy = f"remove it, or set reward.type to {only}"
    return Mistake(f"reward.{key}", None, f"{key} with reward.type {found}", f"{key} only with {only}", remedy)
