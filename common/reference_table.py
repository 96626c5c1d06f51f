"""The tables of keys in our pages, made from a file's schema."""

from __future__ import annotations

from collections.abc import Iterator

from common.schema_words import KeyPath, Schema, SchemaWords, default_text, type_text


def table(words: SchemaWords, path: KeyPath, names: list[str] | None = None) -> Iterator[str]:
    """The keys at `path` with type, default and meaning, as lines of markdown.

    Args:
        names: some of the keys only.
    """
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name in words.keys_of(path) if names is None else names:
        key = words.schema_at((*path, name))
        assert key is not None
        kind = "a section, see below" if not path and words.keys_of((name,)) else type_text(key)
        cells = (f"`{name}`", kind, _default(words, path, name, key), key.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def section(words: SchemaWords, name: str) -> Iterator[str]:
    """The heading of a section, what it is for, and its keys."""
    key = words.root["properties"][name]
    needed = " Required." if name in words.required_keys_of(()) else ""
    yield from ("", f"### {name}", "", f"{words.resolve(key).get('description', '')}{needed}", "")
    yield from table(words, (name,))


def _default(words: SchemaWords, path: KeyPath, name: str, key: Schema) -> str:
    if name in words.required_keys_of(path):
        return "required"
    return f"`{default_text(key) or ('[]' if key.get('type') == 'array' else '{}')}`"
