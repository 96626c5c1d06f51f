"""The YAML of our files: a value is what it looks like. Two ways to read scalars, with one rule of what is null.

`Typed` (run files) knows numbers and switches. It differs from PyYAML's default: `1e-6` is a number; `1:30`, `010` and
`2026-01-31` are text (there: 90, 8 and a date).
`Textual` (site files) leaves every scalar a text, because most values there go to Slurm or into a shell as they stand:
the account `007` keeps its zeros, `no` as the value of a variable stays `no`; the schema makes numbers and switches
of those that are to be some.
In both, `~`, `null` and an empty value, without quotes, are null; there are no `<<` merges.
The writer follows the same rules, so that what is written reads back the same.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

import yaml

NULL = ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN")
RULES: tuple[tuple[str, str, str], ...] = (
    NULL,
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


class Typed(yaml.SafeLoader):
    """Reads numbers and switches as such."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


class Textual(yaml.SafeLoader):
    """Reads every scalar as text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


Reader = type[Typed] | type[Textual]


class Writer(yaml.SafeDumper):
    """Writes what both read back."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, _data: Any) -> bool:
        """Equal sections are written out twice, not as `&id001`."""
        return True


def _add(target: Any, tag: str, pattern: str, first: str) -> None:
    target.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), [*first, *([""] if tag == NULL[0] else [])])


for _rule in RULES:
    _add(Typed, *_rule)
    _add(Writer, *_rule)
_add(Textual, *NULL)


def compose(text: str, reader_class: Reader) -> yaml.Node | None:
    """The one document of `text` as nodes, which know their lines; None if it is empty.

    Raises:
        yaml.YAMLError: not YAML, or more than one document.
    """
    reader = reader_class(text)
    try:
        return reader.get_single_node()
    finally:
        reader.dispose()


def construct(node: yaml.Node, reader_class: Reader) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: an explicit tag that the text does not fit, such as `!!int one`.
    """
    reader = reader_class("")
    try:
        return reader.construct_object(node, deep=True)
    finally:
        reader.dispose()


def is_text(text: str) -> bool:
    """Whether `text` without quotes is text to `Typed`, rather than a number, a switch or null."""
    reader = Typed("")
    try:
        tag: str = reader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    finally:
        reader.dispose()
    return tag.endswith(":str")


def write(value: Any, stream: TextIO) -> None:
    """`value` as YAML, keys in their own order."""
    yaml.dump(value, stream, Dumper=Writer, sort_keys=False, allow_unicode=True, width=120)
