"""What the schema says about a key, in words: used by messages and by the reference page alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from core.config.schema import RunConfig

Schema = Mapping[str, Any]
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
PLAIN = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}


@cache
def root() -> Schema:
    """The whole run file as JSON schema."""
    return RunConfig.model_json_schema()


def schema_at(path: tuple[str, ...]) -> Schema | None:
    """The schema of a key, sections followed; None if the run file has no such key."""
    schema: Schema = root()
    for key in path:
        below = resolve(schema)
        if key in below.get("properties", {}):
            schema = below["properties"][key]
        elif isinstance(below.get("additionalProperties"), Mapping):
            schema = below["additionalProperties"]
        elif "items" in below:
            schema = below["items"]
        else:
            return None
    return schema


def resolve(schema: Schema) -> Schema:
    """The section that a `$ref` points to; anything else as it is."""
    if "$ref" not in schema:
        return schema
    section: Schema = root()["$defs"][schema["$ref"].rpartition("/")[2]]
    return section


def keys_of(path: tuple[str, ...]) -> list[str]:
    """The known keys of the section at `path`; the sections themselves at the empty path."""
    schema = root() if not path else schema_at(path)
    return list(resolve(schema or {}).get("properties", {}))


def required_keys_of(path: tuple[str, ...]) -> list[str]:
    """The keys without which the section at `path` is incomplete."""
    return list(resolve(schema_at(path) or {}).get("required", ()))


def sections() -> list[str]:
    """The names of the sections, in the order of the schema."""
    return [name for name, schema in root()["properties"].items() if "$ref" in schema]


def section_with(key: str) -> str | None:
    """The first section that has `key`."""
    return next((section for section in sections() if key in keys_of((section,))), None)


def type_text(schema: Schema) -> str:
    """What a value must be: `a whole number > 0`, `one of none, full`, `text or null`."""
    if "anyOf" in schema:
        return " or ".join(type_text(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return f"one of {', '.join(schema.get('enum', [schema.get('const')]))}"
    kind = schema.get("type")
    if kind == "null":
        return "null"
    if kind == "array":
        element = type_text(schema["items"]).removeprefix("a ")
        return "a list of mappings of keys" if element == "mapping of keys" else f"a list of {element}s"
    if "$ref" in schema or "properties" in schema:
        return "a mapping of keys"
    if kind == "object":
        return (
            "a mapping of names to data sections" if "$ref" in str(schema.get("additionalProperties")) else "a mapping"
        )
    bounds = " and ".join(f"{sign} {schema[bound]}" for bound, sign in BOUNDS.items() if bound in schema)
    return f"{PLAIN[str(kind)]} {bounds}".rstrip()


def default_text(schema: Schema) -> str:
    """The default as a run file spells it; the empty string if the key is required."""
    if "default" not in schema:
        return ""
    default = schema["default"]
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(default)
