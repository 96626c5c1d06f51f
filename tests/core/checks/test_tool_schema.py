"""Schemas of tools, read from their text, against those that transformers makes of the functions themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.mistake import Wrong
from core.checks.tool_schema import tool_schema, tool_schemas
from core.plugins import load_function

TOOLS = '''
from typing import Any, Literal, Optional, Union


def add(a: int, b: float = 1.5):
    """Add two numbers.

    They may be negative.

    Args:
        a: the first
        b: the second,
            which is 1.5 if left out
    Returns:
        their sum
    """
    return a + b


async def look(words: list[str], *, how: Literal["all", "any"] = "all", most: int | None = None, also: Any = 0):
    """Look something up.

    Args:
        words: what to look for
        how: whether all of them have to be there
        most: of results
        also: anything
    """


def shapes(a: dict[str, int], b: Optional[list[list[bool]]], c: Union[int, str], d: dict, e: "str | float"):
    """Take all kinds.

    Args:
        a: a
        b: b
        c: c
        d: d
        e: e
    """


def bare() -> str:
    """Say something."""
    return "something"


def undescribed(a: int):
    """Its argument is not described."""


def untyped(a, b: int):
    """A tool."""


def odd(a: set[int]):
    """A tool."""


def many(*numbers: int):
    """A tool."""


def silent(a: int):
    return a


class Thing:
    """A class."""


made = add
'''


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools") / "tools.py"
    path.write_text(TOOLS)
    return path


@pytest.mark.parametrize("name", ["add", "look", "shapes", "bare"])
def test_a_schema_is_that_of_transformers(name: str, tools: Path) -> None:
    from transformers.utils import get_json_schema

    wanted = get_json_schema(load_function(f"{tools}:{name}", "rollout.tools"))
    wanted["function"].pop("return", None)
    assert tool_schema(f"{tools}:{name}") == wanted


def test_an_argument_need_not_be_described(tools: Path) -> None:
    schema = tool_schema(f"{tools}:undescribed")["function"]
    assert schema["parameters"] == {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("untyped", ["no type of a of untyped in line 52 of", "wanted int, float"]),
        ("odd", ["the type set[int] of a of odd in line 56", "use one that JSON has"]),
        ("many", ["many in line 60", "with (*numbers: int)", "name them one by one"]),
        ("silent", ["no docstring of silent in line 64"]),
        ("Thing", ["Thing of", "not defined there by def"]),
        ("made", ["made of", "not defined there by def"]),
        ("nobody", ["no nobody in"]),
    ],
)
def test_what_is_no_tool_is_refused_with_its_line(name: str, words: list[str], tools: Path) -> None:
    with pytest.raises(Wrong) as caught:
        tool_schema(f"{tools}:{name}")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_two_tools_of_one_name_are_refused(tools: Path) -> None:
    with pytest.raises(Wrong, match="two tools named add"):
        tool_schemas([f"{tools}:add", f"{tools}:bare", f"{tools}:add"])
