"""Messages read "found …; wanted …: remedy", so found and wanted are noun phrases. Read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("common", "core", "hpc", "launchers", "modelcfg")
CALLED = {"Mistake": (2, 3), "Wrong": (0, 1), "UnsupportedModelError": (0,)}
NO_NOUN_BEGINS_WITH = frozenset(("it", "its", "only", "neither", "either", "not", "to", "on", "they", "must", "cannot"))


def test_found_and_wanted_are_noun_phrases() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in phrases(ast.parse(path.read_text()))
        if text.split() and text.split()[0].casefold() in NO_NOUN_BEGINS_WITH
    ]
    assert wrong == []


def test_the_reader_of_this_test_sees_calls_and_names() -> None:
    source = 'found = "it on a part"\nWrong(f"neither {a}", wanted, "x")\nMistake("k", None, found, "only b", "r")'
    assert [text for _, text in phrases(ast.parse(source))] == ["it on a part", "neither ", "only b"]


def phrases(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The beginnings of all found and wanted that are spelled out: in calls, and given to a variable of such a name."""
    for node in sorted((node for node in ast.walk(tree) if hasattr(node, "lineno")), key=lambda node: node.lineno):
        given: list[ast.expr] = []
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given = [node.value] if node.targets[0].id in ("found", "wanted") else []
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [node.args[at] for at in CALLED.get(name, ()) if at < len(node.args)]
        for value in given:
            if isinstance(value, ast.JoinedStr) and value.values:
                value = value.values[0]
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno, value.value
