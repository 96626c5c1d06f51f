"""Nothing is written twice: functions of one shape in two files, and constants of one name and value.

The shape of a function is its body without docstring, with its own names numbered in order of appearance: a copy with
other variable names is found, a function that calls other functions or reads other attributes is not.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.test_arrows import OURS, ROOT, sources

LEAST_STATEMENTS = 4
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Numbered(ast.NodeTransformer):
    """A function's own names by order of appearance; those of others stay."""

    def __init__(self, function: Function) -> None:
        self._numbers: dict[str, str] = {}
        nodes = list(ast.walk(function))
        self._own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        self._own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._number(node.arg))

    def _number(self, name: str) -> str:
        if name not in self._own:
            return name
        return self._numbers.setdefault(name, f"n{len(self._numbers)}")


def body(function: Function) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function) else function.body


def shape(function: Function) -> str:
    numbered = Numbered(function)
    return "\n".join(ast.dump(numbered.visit(ast.parse(ast.unparse(line)))) for line in body(function))


def num_statements(function: Function) -> int:
    return sum(isinstance(node, ast.stmt) for line in body(function) for node in ast.walk(line))


def functions(text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and num_statements(node) >= LEAST_STATEMENTS:
            yield node


def constants(text: str) -> Iterator[tuple[str, object]]:
    """Module constants, private ones too, with the text of their values.

    Left out: what means too little to be a twin (a digit alone, a type variable), and waits in seconds, which are
    chosen one by one.
    """
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            value = ast.unparse(node.value)
            if (
                len(value) > 1
                and not value.startswith("TypeVar(")
                and not node.targets[0].id.endswith("_S")
                and any(isinstance(part, ast.Constant) for part in ast.walk(node.value))
            ):
                yield node.targets[0].id.lstrip("_"), value


def places(found: Iterator[tuple[str, object]]) -> list[list[str]]:
    where = defaultdict(list)
    for place, key in found:
        where[key].append(place)
    return [together for together in where.values() if len({place.partition(":")[0] for place in together}) > 1]


def everything() -> Iterator[tuple[str, str]]:
    for folder in sorted(OURS):
        for path in sources(folder):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_no_function_is_written_twice() -> None:
    found = ((f"{path}:{one.name}", shape(one)) for path, text in everything() for one in functions(text))
    assert places(found) == []


def test_no_constant_is_written_twice() -> None:
    found = ((f"{path}:{name}", (name, value)) for path, text in everything() for name, value in constants(text))
    assert places(found) == []


@pytest.mark.parametrize(
    ("one", "other", "twins"),
    [
        ("for x in a:\n  y = x\n  b(y)\n  c(y)", "for i in a:\n  j = i\n  b(j)\n  c(j)", True),
        ("for x in a:\n  y = x\n  b(y)\n  c(y)", "for i in a:\n  j = i\n  b(j)\n  d(j)", False),
    ],
    ids=["other names", "another call"],
)
def test_a_copy_with_other_names_is_seen(one: str, other: str, twins: bool) -> None:
    texts = ["def f(a):\n" + "".join(f"  {line}\n" for line in text.split("\n")) for text in (one, other)]
    shapes = [shape(function) for text in texts for function in functions(text)]
    assert len(shapes) == 2
    assert (shapes[0] == shapes[1]) is twins
