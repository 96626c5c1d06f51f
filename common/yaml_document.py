"""A YAML file as a tree of plain values that knows where each key came from: its line, or the `--set` that gave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common import yaml_dialect
from common.mistake import Mistake

KeyPath = tuple[str, ...]
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
SYNTAX_REMEDIES = {
    "'\\t'": "indent with spaces, not tabs",
    "mapping values are not allowed": "quote a value that contains ': ', or indent the line as its neighbours",
    "undefined alias": "put a value that begins with * in quotes",
    "another document": "keep one document: remove the '---' line",
}


@dataclass(frozen=True)
class FileKind:
    """What messages say of a kind of file, and how its scalars are read.

    Attributes:
        name: without an article: `run file`.
        content: what its top level holds: `a mapping of sections such as model, data, rollout`.
        page: where its keys are explained.
        when_missing: what to do if there is no such file.
        may_be_empty: an empty one is all defaults, not a mistake.
        other_keys: what to do about a key that resembles none; empty: all keys are named.
        where_it_belongs: what to do about an unknown key that has a meaning elsewhere; None: it has none.
    """

    name: str
    content: str
    page: str
    reader: yaml_dialect.Reader
    when_missing: str
    may_be_empty: bool = False
    other_keys: str = ""
    where_it_belongs: Callable[[KeyPath], str | None] = lambda _: None


@dataclass
class Document:
    """The values, the line of each key path, and the override that each overridden key path came from."""

    kind: FileKind
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

    def mistake(self, path: KeyPath, found: str, wanted: str, remedy: str) -> Mistake:
        """A mistake at `path`, with its line or its override."""
        override = self.override(path)
        line = None if override else self.line(path)
        return Mistake(".".join(path), line, found, wanted, remedy, override)


def read_document(path: Path, kind: FileKind) -> tuple[Document, list[Mistake]]:
    """The document in the file `path`, and what is wrong with it as YAML. Never raises for the file's contents."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Document(kind), [
            _whole_file("no such file", f"a {kind.name}", f"{kind.when_missing} (now in {Path.cwd()})")
        ]
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at position {error.start}"
        return Document(kind), [_whole_file(found, "text in UTF-8", "save the file as UTF-8")]
    except OSError as error:
        return Document(kind), [_whole_file(error.strerror or str(error), "a readable file", kind.when_missing)]
    return parse_document(text, kind)


def parse_document(text: str, kind: FileKind) -> tuple[Document, list[Mistake]]:
    """The document in `text`, and what is wrong with it as YAML. Never raises for the contents."""
    try:
        node = yaml_dialect.compose(text, kind.reader)
    except yaml.YAMLError as error:
        return Document(kind), [_syntax_mistake(error)]
    if node is None and kind.may_be_empty:
        return Document(kind), []
    if not isinstance(node, yaml.MappingNode):
        return Document(kind), [_whole_file(_kind_of(node), kind.content, f"see {kind.page}")]
    document = Document(kind)
    try:
        mistakes = list(refused_nodes(node, kind.reader))
        if not mistakes:
            document.tree = plain(node, kind.reader, document.lines)
    except RecursionError:
        found = "values nested too deeply, or an anchor inside itself"
        return Document(kind), [_whole_file(found, "a few levels", "remove the alias (*name)")]
    return document, mistakes


def refused_nodes(node: yaml.Node, reader: yaml_dialect.Reader, path: KeyPath = ()) -> Iterator[Mistake]:
    """Duplicate keys, keys that are no text, and tags such as !!python/object, wherever they are."""
    if node.tag not in PLAIN_TAGS:
        yield _at(node, path, f"the tag {node.tag}", "a plain value", "remove the tag")
    elif isinstance(node, yaml.ScalarNode):
        if not node.value.isascii() and node.value.encode("utf-8", "replace").decode() != node.value:
            yield _at(node, path, "half a character (a lone surrogate)", "text that UTF-8 can hold", "correct it")
        try:
            yaml_dialect.construct(node, reader)
        except ValueError:
            yield _at(node, path, f"{node.value!r} with the tag {node.tag}", "a plain value", "remove the tag")
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            yield from refused_nodes(child, reader, (*path, str(position)))
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
            yield from refused_nodes(child, reader, below)


def plain(node: yaml.Node, reader: yaml_dialect.Reader, lines: dict[KeyPath, int], path: KeyPath = ()) -> Any:
    """The value of a node; on the way, `lines` is filled."""
    if isinstance(node, yaml.MappingNode):
        values = {}
        for key, child in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            values[key.value] = plain(child, reader, lines, (*path, key.value))
        return values
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            lines[(*path, str(position))] = child.start_mark.line + 1
        return [plain(child, reader, lines, (*path, str(position))) for position, child in enumerate(node.value)]
    return yaml_dialect.construct(node, reader)


def _kind_of(node: yaml.Node | None) -> str:
    if node is None:
        return "an empty file"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value!r}"


def _syntax_mistake(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    found = getattr(error, "problem", None) or " ".join(str(error).split())
    remedy = next((text for sign, text in SYNTAX_REMEDIES.items() if sign in found), None)
    where = f" in column {mark.column + 1}" if mark else ""
    return Mistake(
        "",
        mark.line + 1 if mark else None,
        f"a syntax error{where} ({found})",
        "valid YAML",
        remedy or "look at this line and the one above it",
    )


def _at(node: yaml.Node, path: KeyPath, found: str, wanted: str, remedy: str) -> Mistake:
    return Mistake(".".join(path), node.start_mark.line + 1, found, wanted, remedy)


def _whole_file(found: str, wanted: str, remedy: str) -> Mistake:
    return Mistake("", None, found, wanted, remedy)
