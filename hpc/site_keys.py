"""What the schema of the site file says about a key, in words: used by messages and by the reference page alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from hpc.site_schema import Site

Schema = Mapping[str, Any]
SECTIONS = ("container", "cpu_nodes")
EMPTY_MEANS_DEFAULT = frozenset(("container", "environment", "sbatch", "modules", "setup", "nodes_exclude"))
"""Sections and lists whose lines are all commented out are read as null; the default is meant."""
_PLAIN = {"integer": "a whole number", "string": "text", "boolean": "true or false", "null": "null"}


@cache
def root() -> Schema:
    """The whole site file as JSON schema."""
    return Site.model_json_schema()


def schema_at(path: tuple[str, ...]) -> Schema:
    """The schema of a key, of a list's item or of a mapping's value; empty if there is no such key."""
    schema: Schema = root()
    for key in path:
        below = _below(schema)
        more = below.get("additionalProperties")
        found = (
            below.get("properties", {}).get(key) or below.get("items") or (more if isinstance(more, Mapping) else {})
        )
        schema = found
    return schema


def keys_of(path: tuple[str, ...]) -> list[str]:
    """The known keys at `path`; all keys of the file at the empty path."""
    return list(_below(schema_at(path)).get("properties", {}))


def _below(schema: Schema) -> Schema:
    """The section that a `$ref` points to, null aside; anything else as it is."""
    reference = next((choice for choice in schema.get("anyOf", [schema]) if "$ref" in choice), None)
    if reference is None:
        return schema
    section: Schema = root()["$defs"][reference["$ref"].rpartition("/")[2]]
    return section


def type_text(schema: Schema) -> str:
    """What a value must be: `a whole number >= 0`, `one of none, pyxis`, `text or null`."""
    if "anyOf" in schema:
        return " or ".join(type_text(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    kind = schema.get("type")
    if kind == "array":
        return "a list of texts"
    if kind == "object" and "properties" not in schema:
        return "a mapping of names to text"
    if kind == "object" or "$ref" in schema:
        return "a section of keys"
    if schema.get("format") == "path":
        return "a path"
    return _PLAIN[str(kind)] + (f" >= {schema['minimum']}" if "minimum" in schema else "")


def default_text(schema: Schema) -> str:
    """The default as a site file spells it."""
    if "default" not in schema or isinstance(schema["default"], dict):
        return "{}"
    default = schema["default"]
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(default)
