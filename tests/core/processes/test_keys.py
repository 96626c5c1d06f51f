"""The store's keys: all in one file, none like another, and nobody else spells one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import pytest

from core.processes import keys
from tests.test_arrows import ROOT, sources

HERE = ROOT / "core" / "processes" / "keys.py"
STORE = {"rendezvous", "store", "pulse", "server"}  # names of values that are asked for a key
ASKS = {"set", "get", "get_many", "has", "add", "any_of", "post", "count", "value", "check", "Key"}
ARGUMENTS = {"node": 3, "question": keys.OFFLOAD}


def vocabulary() -> Iterator[keys.Key]:
    """One of every key."""
    for name, value in vars(keys).items():
        if name.isupper():
            yield value
        elif inspect.isfunction(value) and value.__module__ == keys.__name__:
            made = value(*(ARGUMENTS.get(argument, "some") for argument in inspect.signature(value).parameters))
            yield from made if isinstance(made, tuple) else (made,)


def spelled_keys(text: str) -> list[int]:
    """Lines that name a key of the store by a text of their own."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args and _asks_store(node.func) and _is_text(node.args[0]):
            found.append(node.lineno)
    return found


def _asks_store(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return called.id == "Key"
    if not isinstance(called, ast.Attribute) or called.attr not in ASKS:
        return False
    if called.attr == "Key":
        return True
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name.strip("_") in STORE


def _is_text(argument: ast.expr) -> bool:
    if isinstance(argument, ast.List | ast.Tuple | ast.ListComp):
        return any(isinstance(part, ast.Constant | ast.JoinedStr) for part in ast.walk(argument))
    return isinstance(argument, ast.Constant | ast.JoinedStr | ast.BinOp)


def test_no_key_is_another_or_begins_another() -> None:
    found = list(vocabulary())
    assert len(found) > 17
    for one in found:
        assert not [other for other in found if other is not one and f"{other}/".startswith(f"{one}/")] or (
            one == keys.OFFLOAD  # a question, whose votes stand under it
        )


def test_every_key_has_its_sentence() -> None:
    body = ast.parse(HERE.read_text()).body
    for entry, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(entry, ast.Assign) and entry.targets[0].id.isupper():  # type: ignore[attr-defined]
            assert isinstance(following, ast.Expr), ast.unparse(entry)
        if isinstance(entry, ast.FunctionDef):
            assert ast.get_docstring(entry), entry.name


@pytest.mark.parametrize(
    "text",
    [
        "self._rendezvous.set('phase', 'x')",
        "pulse.post(f'health/{node}', '')",
        "rendezvous.get_many([f'pulse/{node}' for node in nodes])",
        "store.add(prefix + '/yes')",
        "KEY = keys.Key('phase')",
        "KEY = Key('phase')",
    ],
)
def test_a_spelled_key_is_found(text: str) -> None:
    assert spelled_keys(text) == [1]


@pytest.mark.parametrize("folder", ["core", "hpc", "launchers"])
def test_nobody_else_spells_a_key(folder: str) -> None:
    paths = [path for path in sources(folder) if path != HERE]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in spelled_keys(path.read_text())]
    assert found == []
