"""Keys of rows that reach into nested values: `a.b` is the 7 of {"a": {"b": 7}}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def value_at(row: Mapping[str, Any], key: str) -> Any:
    """The value of a key, or of a dotted key below it. A mapping stored as JSON text is read on the way.

    Raises:
        KeyError: the row has neither.
    """
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        value = mapping_in(value)
        if value is None or part not in value:
            raise KeyError(key)
        value = value[part]
    return value


def mapping_in(value: Any) -> Mapping[str, Any] | None:
    """The value if it is a mapping, or the mapping that it holds as JSON text; else None."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, Mapping) else None


def keys_of(row: Mapping[str, Any]) -> Iterator[str]:
    """The keys whose values are no mappings, dotted where they are nested: those that can be meant."""
    for key, value in row.items():
        below = mapping_in(value)
        if below:
            yield from (f"{key}.{inner}" for inner in keys_of(below))
        else:
            yield str(key)
