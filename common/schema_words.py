"""What a file's schema says about a key, in words: used by messages and by the reference page alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel

KeyPath = tuple[str, ...]
Schema = Mapping[str, Any]
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
PLAIN = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}


class SchemaWords:
    """The keys of one kind of file."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    @cached_property
    def root(self) -> Schema:
        """The whole file as JSON schema."""
        return self._model.model_json_schema()

    def schema_at(self, path: KeyPath) -> Schema | None:
        """The schema of a key, of a list's item or of a mapping's value; None if there is no such key."""
        schema: Schema = self.root
        for key in path:
            below = self.resolve(schema)
            if key in below.get("properties", {}):
                schema = below["properties"][key]
            elif isinstance(below.get("additionalProperties"), Mapping):
                schema = below["additionalProperties"]
            elif "items" in below:
                schema = below["items"]
            else:
                return None
        return schema

    def resolve(self, schema: Schema) -> Schema:
        """The section that a `$ref` points to, null aside; anything else as it is."""
        choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
        if len(choices) == 1 and "$ref" in choices[0]:
            section: Schema = self.root["$defs"][choices[0]["$ref"].rpartition("/")[2]]
            return section
        return choices[0] if len(choices) == 1 else schema

    def keys_of(self, path: KeyPath) -> list[str]:
        """The known keys of the section at `path`; all keys of the top level at the empty path."""
        return list(self.resolve(self.schema_at(path) or {}).get("properties", {}))

    def required_keys_of(self, path: KeyPath) -> list[str]:
        """The keys without which the section at `path` is incomplete."""
        return list(self.resolve(self.schema_at(path) or {}).get("required", ()))

    def sections(self) -> list[str]:
        """The names of the sections, in the order of the schema."""
        return [name for name in self.root["properties"] if self.keys_of((name,))]

    def home_of(self, key: str) -> KeyPath | None:
        """The top level (the empty path), else the first section, that has `key`; None: nobody has it."""
        homes: list[KeyPath] = [(), *((section,) for section in self.sections())]
        return next((home for home in homes if key in self.keys_of(home)), None)

    def with_empty(self, value: Any, path: KeyPath = ()) -> Any:
        """A section, list or mapping whose lines are all commented out is read as null; an empty one is meant."""
        schema = self.schema_at(path)
        if value is None and schema is not None and "anyOf" not in schema:
            wanted = self.resolve(schema)
            return {"array": [], "object": {}}.get(str(wanted.get("type")))
        if isinstance(value, dict):
            return {key: self.with_empty(below, (*path, key)) for key, below in value.items()}
        if isinstance(value, list):
            return [self.with_empty(below, (*path, str(index))) for index, below in enumerate(value)]
        return value


def type_text(schema: Schema) -> str:
    """What a value must be: `a whole number > 0`, `one of none, full`, `text or null`."""
    if "anyOf" in schema:
        return " or ".join(type_text(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return f"one of {', '.join(map(str, choices_of(schema)))}"
    kind = schema.get("type")
    if kind == "array":
        return f"a list of {_plural(schema['items'])}"
    if "$ref" in schema or "properties" in schema:
        return "a mapping of keys"
    if kind == "object":
        values = schema.get("additionalProperties")
        if not isinstance(values, Mapping):
            return "a mapping"
        return f"a mapping of names to {'text' if type_text(values) == 'text' else _plural(values)}"
    if kind == "null":
        return "null"
    if schema.get("format") == "path":
        return "a path"
    bounds = " and ".join(f"{sign} {schema[bound]}" for bound, sign in BOUNDS.items() if bound in schema)
    return f"{PLAIN[str(kind)]} {bounds}".rstrip()


def choices_of(schema: Schema) -> list[Any]:
    """The only values that there are; empty if they are not counted."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum", ()))


def default_text(schema: Schema) -> str:
    """The default as a file spells it; the empty string if the key is required."""
    if "default" not in schema:
        return ""
    default = schema["default"]
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, list):
        return f"[{', '.join(map(str, default))}]"
    return "{}" if isinstance(default, dict) else str(default)


def _plural(schema: Schema) -> str:
    if "$ref" in schema or "properties" in schema:
        return "mappings of keys"
    return f"{type_text(schema).removeprefix('a ')}s"
