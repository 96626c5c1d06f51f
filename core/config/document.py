"""A run file as a tree of plain values that knows where each key came from: its line, or the `--set` that gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.config import dialect
from core.config.problem import Problem

KeyPath = tuple[str, ...]
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


@dataclass
class Document:
    """The values, the line of each key path, and the override that each overridden key path came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, else of the section nearest above it; None if neither is in the file."""
        return next((self.lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in self.lines), None)

    def override(self, path: KeyPath) -> str:
        """The `--set` text that set `path`, or a key below it; empty if none did."""
        for overridden, text in self.overrides.items():
            if overridden[: len(path)] == path or path[: len(overridden)] == overridden:
                return text
        return ""

    def value(self, path: KeyPath) -> Any:
        """The value at `path`; None if it is not there."""
        value: Any = self.tree
        for key in path:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value

    def problem(self, path: KeyPath, found: str, wanted: str, remedy: str) -> Problem:
        """A problem at `path`, with its line or its override."""
        override = self.override(path)
        line = None if override else self.line(path)
        return Problem(".".join(path), line, found, wanted, remedy, override)


def read_document(path: Path) -> tuple[Document, list[Problem]]:
    """The document in the file `path`, and what is wrong with it as YAML. Never raises for the file's contents."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Document(), [
            _whole_file("no such file", "a run file", f"give the path of a YAML file (now in {Path.cwd()})")
        ]
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at position {error.start}"
        return Document(), [_whole_file(found, "text in UTF-8", "save the file as UTF-8")]
    except OSError as error:
        return Document(), [
            _whole_file(error.strerror or str(error), "a readable file", "give the path of a YAML file")
        ]
    return parse_document(text)


def parse_document(text: str) -> tuple[Document, list[Problem]]:
    """As `read_document`, from the text itself."""
    try:
        node = dialect.compose(text)
    except yaml.YAMLError as error:
        return Document(), [_syntax_problem(error)]
    if node is None:
        return Document(), [
            _whole_file("an empty file", "sections such as model, data, rollout", "see docs/run-file.md")
        ]
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value!r}"
        return Document(), [
            _whole_file(kind, "a mapping of sections such as model, data, rollout", "see docs/run-file.md")
        ]
    try:
        document, problems = Document(), list(_refused_nodes(node, ()))
        if not problems:
            document.tree = _plain(node, (), document.lines)
    except RecursionError:
        found = "values nested too deeply, or an anchor inside itself"
        return Document(), [_whole_file(found, "a few levels", "remove the alias (*name)")]
    return document, problems


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[Problem]:
    """Sets `a.b=value` in the tree, the value read as YAML, and gives what is wrong with the texts themselves.

    Whether the key exists is not asked here: the schema is asked once, of the whole tree.
    """
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            problems.append(_override_problem(override, "no key=value", "key=value", "write e.g. --set train.lr=1e-6"))
            continue
        try:
            _set(document.tree, path, _value(text))
        except IndexError:
            remedy = "entries count from 0; add one in the run file"
            problems.append(_override_problem(override, "no such entry in the list", "an entry that is there", remedy))
        except (yaml.YAMLError, ValueError, RecursionError):
            remedy = "quote it twice, once for the shell and once for YAML"
            problems.append(_override_problem(override, f"the value {text!r}", "a YAML value", remedy))
        document.overrides[path] = override
    return problems


def _value(text: str) -> Any:
    """The value that the text of an override spells.

    Raises:
        yaml.YAMLError, ValueError: no value that a run file could have.
    """
    node = dialect.compose(text)
    if node is None:
        return None
    if any(_refused_nodes(node, ())):
        raise ValueError(text)
    return _plain(node, (), {})


def _set(tree: Any, path: KeyPath, value: Any) -> None:
    """Sets the value, making the sections above it; below a list, a key is an index into it.

    Raises:
        IndexError: the list has no such entry.
    """
    key: Any = int(path[0]) if isinstance(tree, list) else path[0]
    if len(path) == 1:
        tree[key] = value
        return
    below = tree[key] if isinstance(tree, list) else tree.get(key)
    if not isinstance(below, dict) and not (isinstance(below, list) and path[1].isdigit()):
        below = tree[key] = {}
    _set(below, path[1:], value)


def _refused_nodes(node: yaml.Node, path: KeyPath) -> Iterator[Problem]:
    """Duplicate keys, keys that are no text, and tags such as !!python/object, wherever they are."""
    if node.tag not in PLAIN_TAGS:
        yield _at(node, path, f"the tag {node.tag}", "a plain value", "remove the tag")
    elif isinstance(node, yaml.ScalarNode):
        try:
            dialect.construct(node)
        except ValueError:
            yield _at(node, path, f"{node.value!r} with the tag {node.tag}", "a plain value", "remove the tag")
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            yield from _refused_nodes(child, (*path, str(position)))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield _at(key, path, "a key that is a list or a mapping", "a key that is text", "quote the key")
                continue
            below = (*path, key.value)
            if key.value in seen:
                found = f"the key a second time; the first is on line {seen[key.value]}"
                yield _at(key, below, found, "each key once", "remove one of the two")
            seen.setdefault(key.value, key.start_mark.line + 1)
            yield from _refused_nodes(child, below)


def _plain(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """The value of a node; on the way, `lines` is filled."""
    if isinstance(node, yaml.MappingNode):
        values = {}
        for key, child in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            values[key.value] = _plain(child, (*path, key.value), lines)
        return values
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            lines[(*path, str(position))] = child.start_mark.line + 1
        return [_plain(child, (*path, str(position)), lines) for position, child in enumerate(node.value)]
    return dialect.construct(node)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    found = getattr(error, "problem", None) or " ".join(str(error).split())
    remedies = {
        "'\\t'": "indent with spaces, not tabs",
        "mapping values are not allowed": "quote a value that contains ': ', or indent the line as its neighbours",
        "undefined alias": "put a value that begins with * in quotes",
        "another document": "keep one document: remove the '---' line",
    }
    remedy = next((text for sign, text in remedies.items() if sign in found), "look at this line and the one above it")
    where = f" in column {mark.column + 1}" if mark else ""
    return Problem("", mark.line + 1 if mark else None, f"a syntax error{where} ({found})", "valid YAML", remedy)


def _at(node: yaml.Node, path: KeyPath, found: str, wanted: str, remedy: str) -> Problem:
    return Problem(".".join(path), node.start_mark.line + 1, found, wanted, remedy)


def _whole_file(found: str, wanted: str, remedy: str) -> Problem:
    return Problem("", None, found, wanted, remedy)


def _override_problem(override: str, found: str, wanted: str, remedy: str) -> Problem:
    return Problem("", None, found, wanted, remedy, override)
