"""The YAML of run files: the core types only, so that a value is what it looks like.

Differs from PyYAML's default: `1e-6` is a number; `1:30`, `010` and `2026-01-31` are text (there: 90, 8 and a date);
no `<<` merges.
The writer follows the same rules, so that what is written reads back the same.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

import yaml

RULES: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN"),
    (
        "tag:yaml.org,2002:bool",
        r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF",
        "tTfFyYnNoO",
    ),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


class Reader(yaml.SafeLoader):
    """Reads a run file."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


class Writer(yaml.SafeDumper):
    """Writes a run file."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, _data: Any) -> bool:
        """Equal sections are written out twice, not as `&id001`."""
        return True


for _tag, _pattern, _first in RULES:
    _expression = re.compile(rf"^(?:{_pattern})$")
    for _class in (Reader, Writer):
        _class.add_implicit_resolver(_tag, _expression, [*_first, ""] if _tag.endswith("null") else list(_first))


def compose(text: str) -> yaml.Node | None:
    """The one document of `text` as nodes, which know their lines; None if it is empty.

    Raises:
        yaml.YAMLError: not YAML, or more than one document.
    """
    reader = Reader(text)
    try:
        return reader.get_single_node()
    finally:
        reader.dispose()


def construct(node: yaml.Node) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: an explicit tag that the text does not fit, such as `!!int one`.
    """
    reader = Reader("")
    try:
        return reader.construct_object(node, deep=True)
    finally:
        reader.dispose()


def is_text(text: str) -> bool:
    """Whether `text` without quotes is text, rather than a number, a switch or null."""
    reader = Reader("")
    try:
        tag: str = reader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    finally:
        reader.dispose()
    return tag.endswith(":str")


def write(value: Any, stream: TextIO) -> None:
    """`value` as YAML, keys in their own order."""
    yaml.dump(value, stream, Dumper=Writer, sort_keys=False, allow_unicode=True, width=120)
