"""The YAML of site files as a tree that knows its lines. Every scalar is text, so that a value is what it looks like:
`24:00:00` is no number in base 60, `007` keeps its zeros, `no` as a variable's value stays `no`. `null`, `~` and an
empty value without quotes are null."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hpc.mistake import Mistake

KeyPath = tuple[str, ...]
Lines = dict[KeyPath, int]
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
_KEYS = "a mapping of keys such as partition, account, time"


def read_tree(path: Path) -> tuple[dict[str, Any], Lines, list[Mistake]]:
    """The values of the file `path`, the line of each key path, and what is wrong with it as YAML. It may be empty."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        return _nothing(
            f"a byte that is not UTF-8 at position {error.start}", "text in UTF-8", "save the file as UTF-8"
        )
    except OSError as error:
        return _nothing(error.strerror or str(error), "a site file", "give its path, or make one with `ebbtide doctor`")
    except yaml.YAMLError as error:
        return {}, {}, [_syntax(error)]
    if node is None:
        return {}, {}, []
    if not isinstance(node, yaml.MappingNode):
        return _nothing("a list or plain text", _KEYS, "see docs/site-file.md")
    lines: Lines = {}
    try:
        mistakes = list(_refused(node, ()))
        return ({} if mistakes else _mapping(node, (), lines)), lines, mistakes
    except RecursionError:
        return _nothing("an anchor inside itself", "a few levels", "remove the alias (*name)")


def dump_tree(tree: dict[str, Any]) -> str:
    """`tree` as text that `read_tree` reads back, up to numbers and switches becoming text."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120) if tree else "# all defaults\n"


def _nothing(found: str, wanted: str, remedy: str) -> tuple[dict[str, Any], Lines, list[Mistake]]:
    return {}, {}, [Mistake("", None, found, wanted, remedy)]


def _syntax(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    found = getattr(error, "problem", None) or " ".join(str(error).split())
    remedy = "indent with spaces, not tabs" if "'\\t'" in found else "look at this line and the one above it"
    where = f" in column {mark.column + 1}" if mark else ""
    return Mistake("", mark.line + 1 if mark else None, f"a syntax error{where} ({found})", "valid YAML", remedy)


def _refused(node: yaml.Node, path: KeyPath) -> Iterator[Mistake]:
    """Tags such as !!python/object, keys that are no text, keys given twice."""
    line = node.start_mark.line + 1
    if node.tag not in _TAGS:
        yield Mistake(".".join(path), line, f"the tag {node.tag}", "a plain value", "remove the tag")
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            yield from _refused(child, (*path, str(position)))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield Mistake(".".join(path), line, "a key that is a list or mapping", "a key that is text", "quote it")
                continue
            below = (*path, key.value)
            if key.value in seen:
                found = f"the key a second time; the first is on line {seen[key.value]}"
                yield Mistake(".".join(below), line, found, "each key once", "remove one of the two")
            seen.setdefault(key.value, line)
            yield from _refused(child, below)


def _mapping(node: yaml.MappingNode, path: KeyPath, lines: Lines) -> dict[str, Any]:
    values = {}
    for key, child in node.value:
        lines[(*path, key.value)] = key.start_mark.line + 1
        values[key.value] = _value(child, (*path, key.value), lines)
    return values


def _value(node: Any, path: KeyPath, lines: Lines) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            lines[(*path, str(position))] = child.start_mark.line + 1
        return [_value(child, (*path, str(position)), lines) for position, child in enumerate(node.value)]
    return None if node.style is None and node.value in ("", "~", "null", "Null", "NULL") else node.value
