"""Settings of runs: flat, without secrets, and which of them a person chose. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.redaction import redacted
from core.config.keys import RUN_KEYS

NO_VALUE = "—"
MOST_CHARACTERS = 400


def flat(settings: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    """`{"train": {"lr": 1}}` as `{"train.lr": 1}`, secrets hidden; an empty mapping and a list are values."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{key}.")
        else:
            found[key] = redacted(key, _short(value))
    return found


def _short(value: Any) -> Any:
    """Entries that have a name and no options as their names, as a run file may write them."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return [one["name"] if not one.get("options") else one for one in value]
    return value


def chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults of the run file's schema, or have none."""
    return {key: value for key, value in settings.items() if value != _default(key)}


def differing(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Key -> its value in each run, as text, for the keys in which the runs differ.

    A run that lacks a key, as one of an earlier version does, differs only from those that have more than its default.
    """
    keys = dict.fromkeys(key for run in runs for key in run)
    different = [key for key in keys if len({text(run.get(key, _default(key))) for run in runs}) > 1]
    return {key: [text(run[key]) if key in run else NO_VALUE for run in runs] for key in different}


def text(value: Any) -> str:
    """A value as a run file spells it, cut where it is long."""
    try:
        shown = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):
        shown = str(type(value).__name__)
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[:MOST_CHARACTERS]}…"


def _default(key: str) -> Any:
    schema = RUN_KEYS.schema_at(tuple(key.split(".")))
    if schema is None:
        return NO_VALUE
    empty: dict[str, Any] = {"array": [], "object": {}}
    return schema.get("default", empty.get(str(schema.get("type")), NO_VALUE))
