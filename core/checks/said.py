"""What a function or class in a door says of itself by plain values in its text: nothing is run, no torch.

In a class `needs_reference = True`, of a function `mine.needs_reference = True` below it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from core.checks.function import source_file
from core.plugins import split_function


class Said(NamedTuple):
    """Plain values by their names.

    Attributes:
        own: those that belong to the class or function.
        defaults: those of its parameters.
    """

    own: dict[str, Any]
    defaults: dict[str, Any]


def said(path: str) -> Said:
    """What the text at `path` says; nothing where there is no such text, or it cannot be read."""
    file = source_file(path)
    if file is None or not file.is_file():
        return Said({}, {})
    return _in_text(file, file.stat().st_mtime_ns, split_function(path)[1])


@lru_cache(maxsize=16)
def _in_text(file: Path, _changed_ns: int, name: str) -> Said:
    own: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # which the checks of doors report
        return Said({}, {})
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            own |= _values(node.body, "")
            made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            defaults |= {key: value for one in made for key, value in _defaults(one)}
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            defaults |= dict(_defaults(node))
    return Said(own | _values(body, f"{name}."), defaults)


def _values(body: list[ast.stmt], owner: str) -> dict[str, Any]:
    """Values of `NAME = value`, or with an owner of `OWNER.NAME = value`; computed ones are left out."""
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        names = [ast.unparse(one) for one in targets if isinstance(one, ast.Name | ast.Attribute)]
        own = [name.removeprefix(owner) for name in names if name.startswith(owner)]
        found |= {name: literal for name in own if "." not in name for literal in _literal(value)}
    return found


def _literal(value: ast.expr) -> Iterator[Any]:
    """The value, if the text alone tells it."""
    try:
        yield ast.literal_eval(value)
    except (ValueError, TypeError):  # computed, or no value at all: {[]: 1}
        return


def _defaults(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    arguments = function.args
    places = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(places[len(places) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    pairs += [(one, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value]
    yield from ((one.arg, value.value) for one, value in pairs if isinstance(value, ast.Constant))
