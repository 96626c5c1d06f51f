"""A run's own generation: what the text of its function shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from common.mistake import Mistake
from core.checks.doors import check_door
from core.checks.function import definition, python_function
from core.config.schema import RunConfig
from core.config.set_generation import generation_of
from core.doors import GENERATE, ONE_TURN, ROWS
from core.plugins import split_function


def is_asynchronous(config: RunConfig) -> Iterator[Mistake]:
    """A generation function is a coroutine function, or a class whose objects are: its tasks share a process."""
    yield from _is_asynchronous(GENERATE.key, config.rollout.generate)


def of_sets(config: RunConfig) -> Iterator[Mistake]:
    """The same of evaluation sets that have one of their own: one turn, or a function."""
    for name, one in config.eval.sets.items():
        key = f"eval.sets.{name}.generate"
        if one.generate is None:
            if one.generate_options:
                found, wanted = f"options, and no {key}", "options of a generation that the set names"
                yield Mistake(f"{key}_options", None, found, wanted, "add generate, or remove them")
            continue
        if config.rollout.generate == ROWS:
            found = f"{one.generate} with {GENERATE.key} {ROWS}"
            yield Mistake(key, None, found, "none, as nothing is generated", "remove it")
            continue
        builtins = {ONE_TURN: GENERATE.builtins[ONE_TURN]}
        door = replace(GENERATE, key=key, options_key=f"{key}_options", builtins=builtins)
        settings = generation_of(config, name).model_dump()
        yield from check_door(door, one.generate, one.generate_options, settings)
        yield from _is_asynchronous(key, one.generate)


def _is_asynchronous(key: str, name: str) -> Iterator[Mistake]:
    if ":" not in name or list(python_function(key, name)):  # which the door's own check reports
        return
    found = definition(name)
    called = _call_of(found) if isinstance(found, ast.ClassDef) else found
    if isinstance(called, ast.FunctionDef) and not called.decorator_list:
        file, function = split_function(name)
        yield Mistake(
            key,
            None,
            f"def {called.name} in line {called.lineno} of {file} ({function})",
            "async def, for one process works on several tasks",
            "write async def, and await what takes time",
        )


def _call_of(found: ast.ClassDef) -> ast.AST | None:
    return next((one for one in found.body if getattr(one, "name", "") == "__call__"), None)
