"""A run's own generation: what the text of its function shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.function import definition, python_function
from core.config.schema import RunConfig
from core.doors import GENERATE
from core.plugins import split_function


def is_asynchronous(config: RunConfig) -> Iterator[Mistake]:
    """A generation function is a coroutine function, or a class whose objects are: its tasks share a process."""
    name = config.rollout.generate
    if ":" not in name or list(python_function(GENERATE.key, name)):  # which the door's own check reports
        return
    found = definition(name)
    called = _call_of(found) if isinstance(found, ast.ClassDef) else found
    if isinstance(called, ast.FunctionDef) and not called.decorator_list:
        file, function = split_function(name)
        yield Mistake(
            GENERATE.key,
            None,
            f"def {called.name} in line {called.lineno} of {file} ({function})",
            "async def, for one process works on several tasks",
            "write async def, and await what takes time",
        )


def _call_of(found: ast.ClassDef) -> ast.AST | None:
    return next((one for one in found.body if getattr(one, "name", "") == "__call__"), None)
