"""What the loss and the advantage of a run file say of themselves, read from their text: nothing is run, no torch.

Planner and trainer ask here, so that both count with the same. A thing is said by a plain constant: in a class
`needs_reference = True`, of a function `mine.needs_reference = True` below it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from common.mistake import Wrong
from core.checks.function import module_file
from core.config.schema import AlgorithmConfig
from core.doors import ADVANTAGE, LOSS
from core.plugins import split_function, where

Literals = dict[str, Any]


class LossNeeds(NamedTuple):
    """What a loss has to be given."""

    reference: bool
    entropy_gradient: bool


def loss_needs(algorithm: AlgorithmConfig) -> LossNeeds:
    """What the run's loss asks for."""
    said, defaults = _said(LOSS.place(algorithm.loss))
    values = {**defaults, **algorithm.model_dump(), **algorithm.loss_options}

    def asks(name: str) -> bool:
        found = said.get(name, False)
        return bool(values.get(found)) if isinstance(found, str) else bool(found)

    return LossNeeds(asks("needs_reference"), asks("needs_entropy_gradient"))


def min_group_size(algorithm: AlgorithmConfig) -> int:
    """How many samples of a prompt the run's estimator needs."""
    found = _said(ADVANTAGE.place(algorithm.advantage_estimator))[0].get("min_group_size", 1)
    return found if isinstance(found, int) else 1


def may_differ_by_token(algorithm: AlgorithmConfig) -> bool:
    """Whether advantages may be stored per token: what a user's estimator gives is seen only when it is called."""
    return algorithm.advantage_estimator not in ADVANTAGE.builtins


def refuse_other_needs(algorithm: AlgorithmConfig, loss: Any) -> None:
    """Hold the loss that was made to what its text says: by that the memory was planned.

    Raises:
        Wrong: it says something else, as a property or a value set in `__init__` does.
    """
    said = _said(LOSS.place(algorithm.loss))[0]
    for name in ("needs_reference", "needs_entropy_gradient"):
        found = getattr(loss, name, False)
        if found != said.get(name, False):
            remedy = f"write `{name} = {found!r}` in its class, or the name of the option that asks for it"
            raise Wrong(f"{name} = {found!r} of {where(loss)}, which its text does not say", "a plain constant", remedy)


def _said(path: str) -> tuple[Literals, Literals]:
    """Constants that belong to the class or function at `path`, and the defaults of its parameters."""
    module, name = split_function(path)
    file = Path(module) if module.endswith(".py") else module_file(module)
    if file is None or not file.is_file():
        return {}, {}
    return _in_text(file, file.stat().st_mtime_ns, name)


@lru_cache(maxsize=16)
def _in_text(file: Path, _changed_ns: int, name: str) -> tuple[Literals, Literals]:
    said: Literals = {}
    defaults: Literals = {}
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # which the checks of doors report
        return {}, {}
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            said |= _constants(node.body, "")
            made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            defaults |= {key: value for one in made for key, value in _defaults(one)}
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            defaults |= dict(_defaults(node))
    return said | _constants(body, name), defaults


def _constants(body: list[ast.stmt], owner: str) -> Literals:
    """Values of `NAME = constant`, or with an owner of `OWNER.NAME = constant`."""
    found: Literals = {}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            name = _name_of(target, owner)
            if name and isinstance(node.value, ast.Constant):  # type: ignore[attr-defined]
                found[name] = node.value.value  # type: ignore[attr-defined]
    return found


def _name_of(target: ast.expr, owner: str) -> str:
    if not owner:
        return target.id if isinstance(target, ast.Name) else ""
    of_owner = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == owner
    return target.attr if of_owner and isinstance(target, ast.Attribute) else ""


def _defaults(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    arguments = function.args
    places = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(places[len(places) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    pairs += [(one, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value]
    yield from ((one.arg, value.value) for one, value in pairs if isinstance(value, ast.Constant))
