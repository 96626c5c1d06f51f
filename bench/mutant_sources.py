"""Which mutants of a source file are worth a run, and what each of them changes.

mutmut's are taken as they are, less those that change only what is said: the words of a literal with a blank in it, a
`raise` or a log line. Of the three ways in which it spoils a string one is kept.
"""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

MESSAGES = (r"^\s*raise ", r"^\s*log\.")  # lines whose expressions mutmut is told to leave alone
SPOILT = "XX"  # around a string that mutmut has changed


@dataclass(frozen=True)
class Mutant:
    """One change. `name` is mutmut's; `was` and `now` are the lines that differ, without their indentation."""

    name: str
    path: str
    line: int
    function: str
    was: str
    now: str


def mutants_of(path: Path) -> list[Mutant]:
    """Mutants of one file that are worth a run. The working directory is a copy of the tree, with mutmut's settings."""
    from mutmut.mutation.file_mutation import mutate_file_contents  # here: it reads the settings at once

    source = path.read_text(encoding="utf-8")
    functions, lines = _functions(mutate_file_contents(str(path), source).code), _lines(source)
    found = []
    for name, text in functions.items():
        original, _, number = name.rpartition("__mutmut_")
        unchanged = functions.get(f"{original}__mutmut_orig", "")
        if number.isdigit() and not _only_words(unchanged, text):
            function = original.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
            first, was, now = _difference(unchanged, text)
            module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            found.append(Mutant(f"{module}.{name}", str(path), lines[function] + first, function, was, now))
    return found


def _functions(code: str) -> dict[str, str]:
    """Name -> text of the functions of a module and of the methods of its classes."""
    lines = code.splitlines(keepends=True)  # once: a file of mutants has tens of thousands
    texts = {node.name: lines[node.lineno - 1 : node.end_lineno] for node, _ in _walk(code)}
    return {name: textwrap.dedent("".join(text)) for name, text in texts.items()}


def _lines(code: str) -> dict[str, int]:
    """`function` or `Class.method` -> where it begins."""
    return {f"{name}{node.name}": node.lineno for node, name in _walk(code)}


def _walk(code: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    for node in ast.parse(code).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        yield from ((child, prefix) for child in inner if isinstance(child, ast.FunctionDef))


def _only_words(unchanged: str, text: str) -> bool:
    """Whether nothing but words changed that people read, or a string in another way than the first."""
    before, after = _without_strings(unchanged), _without_strings(text)
    if before[0] != after[0]:
        return False
    old, new = next((a, b) for a, b in zip(before[1], after[1], strict=True) if a != b)
    return " " in old or new != f"{SPOILT}{old}{SPOILT}"


def _without_strings(text: str) -> tuple[str, list[str]]:
    """The syntax tree with empty strings and without the function's name, and the strings."""
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.name, strings = "", []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
            node.value = ""
    return ast.dump(tree), strings


def _difference(unchanged: str, text: str) -> tuple[int, str, str]:
    """How many lines below the function's first the change is, and the lines before and after."""
    before, after = ([_unnamed(line) for line in part.splitlines()] for part in (unchanged, text))
    first = next(i for i, (a, b) in enumerate(zip_longest(before, after)) if a != b)
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    was, now = (" ".join(line[2:].strip() for line in changed if line[0] == sign) for sign in "-+")
    return first, was, now


def _unnamed(line: str) -> str:
    """A function's first line without the name, in which all mutants differ."""
    head, found, rest = line.partition("__mutmut_")
    return f"def ({rest.partition('(')[2]}" if found and head.lstrip().startswith("def ") else line
