"""Tests of programs as data sets have them, read into three kinds.

Cases give the program text on its standard input, and compare what it prints (APPS, TACO, CodeContests, PRIME,
LiveCodeBench). Calls give a function arguments, and compare what it returns (the same sets, with `fn_name`). Checks are
Python that raises where something is wrong (MBPP, HumanEval, KodCode, AceCode); where a check says what an expression
is equal to, it is compared as a call is.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.mistake import Wrong, show

WANTED_TESTS = "tests: Python with asserts, a list of such, or inputs with outputs"
NAMES = ("fn_name", "func_name", "function_name", "entry_point")
INPUTS, OUTPUTS = ("inputs", "input", "stdin"), ("outputs", "output", "expected_output", "stdout")
NESTED = ("tests", "test_cases", "test_list", "unit_tests", "assert_case", "asserts", "test", "input_output")
SETUP = ("test_setup_code", "test_imports", "import_prefix")


@dataclass(frozen=True)
class Case:
    """Text for the standard input, and what is to be printed."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Call:
    """A function's name with its arguments, and what it is to return."""

    name: str
    arguments: tuple[Any, ...]
    returns: Any


@dataclass(frozen=True)
class Equal:
    """An expression, and the value that it is to have."""

    expression: str
    value: Any


@dataclass(frozen=True)
class Check:
    """Python that raises where something is wrong.

    Attributes:
        name: of the function to be tested; empty: none is known.
        needs_name: whether it defines `check(candidate)`, and leaves the call to others.
    """

    code: str
    name: str = ""
    needs_name: bool = False


Test = Case | Call | Equal | Check


def read_tests(label: Any, metadata: Mapping[str, Any] | None = None) -> list[Test]:
    """The tests of a row.

    Args:
        label: text, which may be JSON; a list; or a mapping with inputs and outputs, or with tests.
        metadata: the rest of the row: `entry_point` or `fn_name`, where the label does not name the function.
    Raises:
        Wrong: there is none, or it is of another form.
    """
    tests = _tests(label, _name(metadata or {}))
    if not tests:
        raise Wrong("no test", WANTED_TESTS, "correct or leave out the row")
    return tests


def setup_of(metadata: Mapping[str, Any]) -> str:
    """Python that a row has to be run before its tests."""
    found = [metadata[name] for name in SETUP if metadata.get(name)]
    return "\n".join("\n".join(map(str, one)) if isinstance(one, list | tuple) else str(one) for one in found)


def _tests(label: Any, name: str) -> list[Test]:
    if isinstance(label, str):
        return _of_text(label, name)
    if isinstance(label, Mapping):
        return _of_mapping(label, name)
    if isinstance(label, list | tuple):
        return [test for one in label for test in _tests(one, name)]
    raise Wrong(f"{show(label)} as tests", WANTED_TESTS, "name the key of the tests as label_key")


def _of_text(text: str, name: str) -> list[Test]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _tests(json.loads(text), name)
        except json.JSONDecodeError:
            pass
    if not text.strip():
        return []
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Wrong(f"tests that are no Python ({show(text)}: {error})", WANTED_TESTS, "correct the row") from error
    equals = [_equal(one) for one in body]
    plain = [one for one in equals if one is not None]
    if len(plain) == len(body):
        return [*plain]
    if not any(map(_judges, ast.walk(ast.Module(body, [])))):
        raise Wrong(f"Python without an assert ({show(text)})", WANTED_TESTS, "name the key of the tests as label_key")
    return [Check(text, name, _leaves_call(body))]


def _judges(node: ast.AST) -> bool:
    """Whether it can say that something is wrong: assert, raise, or a method of unittest."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr.startswith("assert")
    return isinstance(node, ast.Assert | ast.Raise)


def _leaves_call(body: Sequence[ast.stmt]) -> bool:
    defined = any(isinstance(one, ast.FunctionDef) and one.name == "check" for one in body)
    calls = (node for one in body if not isinstance(one, ast.FunctionDef) for node in ast.walk(one))
    called = any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "check" for one in calls
    )
    return defined and not called


def _equal(statement: ast.stmt) -> Equal | None:
    """`assert f(1) == 2` as f(1) and 2; None: it is something else."""
    if not isinstance(statement, ast.Assert) or not isinstance(statement.test, ast.Compare):
        return None
    compared = statement.test
    if len(compared.ops) != 1 or not isinstance(compared.ops[0], ast.Eq):
        return None
    sides = (compared.left, compared.comparators[0])
    for expression, literal in (sides, sides[::-1]):
        try:
            return Equal(ast.unparse(expression), ast.literal_eval(literal))
        except (ValueError, TypeError, RecursionError):
            continue
    return None


def _of_mapping(label: Mapping[str, Any], name: str) -> list[Test]:
    details = label.get("metadata")
    if isinstance(details, str) and details.lstrip().startswith("{"):
        details = json.loads(details)
    name = _name(label) or (_name(details) if isinstance(details, Mapping) else "") or name
    inputs, outputs = _first(label, INPUTS), _first(label, OUTPUTS)
    if inputs is None and outputs is None:
        nested = _first(label, NESTED)
        if nested is None:
            raise Wrong(f"{show(dict(label))} as tests", WANTED_TESTS, "name the key of the tests as label_key")
        return _tests(nested, name)
    if "inputs" in label or "outputs" in label:
        if not isinstance(inputs, list | tuple) or not isinstance(outputs, list | tuple) or len(inputs) != len(outputs):
            found = f"{show(inputs)} as inputs and {show(outputs)} as outputs"
            raise Wrong(found, "two lists of one length", "correct the row")
        return [_one(one, other, name) for one, other in zip(inputs, outputs, strict=True)]
    kind = str(label.get("testtype") or label.get("type") or "")
    return [_one(inputs, outputs, "" if kind.startswith("stdin") else name)]


def _one(given: Any, wanted: Any, name: str) -> Test:
    if not name:
        return Case(_lines(given), _lines(wanted))
    if isinstance(given, str):  # an argument a line, as JSON
        given = [json.loads(line) for line in given.splitlines() if line.strip()]
        wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(given, list | tuple):
        raise Wrong(f"{show(given)} as arguments of {name}", "a list, or a line of JSON each", "correct the row")
    return Call(name, tuple(given), wanted)


def _lines(text: Any) -> str:
    if isinstance(text, list | tuple):
        return "\n".join(map(str, text))
    return "" if text is None else str(text)


def _name(names: Mapping[str, Any]) -> str:
    return str(_first(names, NAMES) or "").rpartition(".")[2]


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
