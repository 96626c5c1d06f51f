"""The reward: what its type needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from common.mistake import Mistake, Wrong
from core.checks.doors import check_door
from core.checks.function import definition, python_function
from core.checks.sections import data_sections, name_of_set
from core.config.schema import RunConfig
from core.config.sections.reward import RewardConfig
from core.config.set_rewards import own_rewards, place_of, place_of_own, reward_of
from core.doors import ADDRESS, REWARD, REWARD_PATH
from core.plugins import FORMS, split_function
from core.reward.address import refuse_no_address
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
    if config.reward.type == "python":
        yield from _pattern("reward", config.reward)
        yield from _function_at_path(config.reward)
        return
    if config.reward.path is not None:
        yield _unused("reward", "path", config.reward.type, "python")
    yield from _settings("reward", config.reward, ("python",))


def settings_of_sets(config: RunConfig) -> Iterator[Mistake]:
    """The same of rewards that evaluation sets have of their own."""
    for name, reward in own_rewards(config).items():
        yield from _settings(place_of_own(name), reward)


def _settings(place: str, reward: RewardConfig, names: tuple[str, ...] = ()) -> Iterator[Mistake]:
    """What is wrong with the reward of the section at `place`, which knows these names beside the built-ins."""
    own = ":" in reward.type
    yield from _pattern(place, reward)
    yield from _address(place, reward)
    builtins = {**REWARD.builtins, **dict.fromkeys(names, "")}
    door = replace(REWARD, key=f"{place}.type", options_key=f"{place}.options", builtins=builtins)
    taken = reward.model_dump(exclude={"type", "path", "options"})
    yield from check_door(door, reward.type, reward.options, taken)
    if own:
        yield from _no_generator(door.key, reward.type)


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
    for key, data in data_sections(config).items():
        name = name_of_set(key)
        if reward_of(config, name).type == "reasoning_gym" and data.source != "reasoning_gym":
            said_by = f"{place_of(config, name)}.type"
            remedy = f"use a reasoning_gym dataset, or another {said_by}"
            found = f"{data.source} with {said_by} reasoning_gym"
            yield Mistake(f"{key}.source", None, found, "reasoning_gym, whose entries that reward scores", remedy)


def _pattern(place: str, reward: RewardConfig) -> Iterator[Mistake]:
    key, pattern = f"{place}.pattern", reward.pattern
    wanted = "a regular expression with a group around the answer"
    if reward.type != "regex":
        if pattern is not None and ":" not in reward.type:
            yield _unused(place, "pattern", reward.type, "regex")
        return
    if pattern is None:
        yield Mistake(key, None, f"nothing, with {place}.type regex", wanted, f"add {key}, e.g. 'answer is (\\d+)'")
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        yield Mistake(key, None, f"{pattern!r}, which does not compile ({error})", wanted, "correct it")
        return
    if groups == 0:
        remedy = "put the part that is compared with the label in parentheses"
        yield Mistake(key, None, f"{pattern!r}, which has no group", wanted, remedy)


def _address(place: str, reward: RewardConfig) -> Iterator[Mistake]:
    if reward.type == ADDRESS and "url" in reward.options:
        try:
            refuse_no_address(reward.options["url"])
        except Wrong as wrong:
            yield wrong.at(f"{place}.options")


def _unused(place: str, key: str, found: str, only: str) -> Mistake:
    remedy = f"remove it, or set {place}.type to {only}"
    return Mistake(f"{place}.{key}", None, f"{key} with {place}.type {found}", f"{key} only with {only}", remedy)
