"""Messages read "found …; wanted …: remedy", so found and wanted are noun phrases. Read from the sources.

Two ways lead there: the parts of a mistake, and texts that have the words in them. A phrase that begins with a value
(`f"{count} nodes"`) cannot be judged here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("common", "core", "hpc", "launchers", "modelcfg", "ebbtide")
# callables and the places of found and wanted among their arguments; `mistake` is a document's, and begins with a path
CALLED = {"Mistake": (2, 3), "Wrong": (0, 1), "UnsupportedModelError": (0,), "mistake": (0, 1, 2)}
NAMES = frozenset(("found", "wanted"))
NO_NOUN = re.compile(
    r"(?:it|its|them|they|only|neither|either|not|to|on|in|after|before|once|twice|must|cannot|is|are|was|has|have|if|that"
    r"|which|how|because|so|too|also|without|with|for|from|be|been|already)\b",
    re.IGNORECASE,
)
IN_A_TEXT = re.compile(r"(?:^|[;:,(] )(?:found|wanted) ([a-z]+)")


def test_found_and_wanted_are_noun_phrases() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in phrases(ast.parse(path.read_text(encoding="utf-8")))
        if NO_NOUN.match(text)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "beginnings"),
    [
        ('found = "it on a part"', ["it on a part"]),
        ('found: str = "it on a part"', ["it on a part"]),
        ('found, wanted = f"{a} b", "only c"', ["only c"]),
        ('Wrong(f"neither {a}", wanted, "x")', ["neither "]),
        ('Mistake("k", None, found, "only b", "r")', ["only b"]),
        ('Mistake("k", None, wanted="only b", found=a, remedy="r")', ["only b"]),
        ('Wrong(a, "one" if b else "only two", "x")', ["one", "only two"]),
        ('Wrong("only " + a, b, "x")', ["only "]),
        ('document.mistake(path, "twice", "a key", "x")', ["twice", "a key"]),
        ('fail(f"{path}: found it {a}; wanted a job: x")', ["it", "a"]),
        ('fail("found neither" " or both; wanted one")', ["neither", "one"]),
        ('fail(f"{a} was found here")', []),
        ('def f():\n    """What was found: found it here."""', []),
    ],
)
def test_the_reader_of_this_test_sees_calls_names_and_texts(source: str, beginnings: list[str]) -> None:
    found = [text for _, text in phrases(ast.parse(source)) if text.strip()]
    assert [text.strip() for text in found] == [text.strip() for text in beginnings]


def phrases(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The beginnings of all found and wanted that are spelled out, in the order of the source."""
    left_out = _left_out(tree)
    nodes = sorted(ast.walk(tree), key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))
    for node in nodes:
        for value in _given(node):
            yield from _beginnings(value)
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in left_out:
            yield from ((node.lineno, found[1]) for found in IN_A_TEXT.finditer(_text(node)))


def _given(node: ast.AST) -> list[ast.expr]:
    """Expressions that become a found or a wanted: by place, by name, by assignment."""
    if isinstance(node, ast.Assign):
        pairs = zip(_each(node.targets[0]), _each(node.value), strict=False)
        return [value for target, value in pairs if isinstance(target, ast.Name) and target.id in NAMES]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return [node.value] if node.target.id in NAMES else []
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        by_place = [node.args[at] for at in CALLED.get(name, ()) if at < len(node.args)]
        return by_place + [keyword.value for keyword in node.keywords if keyword.arg in NAMES]
    return []


def _each(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _beginnings(value: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(value, ast.IfExp):
        yield from _beginnings(value.body)
        yield from _beginnings(value.orelse)
    elif isinstance(value, ast.BinOp):
        yield from _beginnings(value.left)
    elif isinstance(value, ast.JoinedStr) and value.values:
        yield from _beginnings(value.values[0])
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.lineno, value.value


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def _left_out(tree: ast.Module) -> set[int]:
    """Texts that are no messages: docstrings, and the pieces of a text that is read as a whole."""
    pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return pieces | alone
