"""Files of one JSON object per line, read for a page that has to be made whatever they hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.redaction import redacted_text

Entry = dict[str, Any]
Numbers = dict[str, float]
Kinds = Mapping[str, type | tuple[type, ...]]

MOST_STEPS = 10**9
MOST_SECONDS = 10.0**11  # of the epoch: far beyond any clock, and still a date
NOTHING = type(None)
EVENTS: Mapping[str, Kinds] = {
    "begin": {"step": int, "num_steps": int},
    "phase": {"phase": str},
    "step": {"step": int, "metrics": dict},
    "eval": {"step": int, "results": dict},
}
ATTEMPT_TEXTS: Kinds = {"how": (str, NOTHING), "host": str, "cause": (str, NOTHING)}
ATTEMPT_COUNTS: Kinds = {"attempt": int, "pid": int, "restart": int, "steps_done": (int, NOTHING)}
ATTEMPT_TIMES = ("began", "ended")
ATTEMPT_LISTS = ("nodes", "failed_nodes")


def read_entries(path: Path, clean: Callable[[Entry], Entry | None], notes: list[str]) -> list[Entry]:
    """The sound entries of a file that may be missing, cut off or damaged; what was left out goes into `notes`."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}.")
        return []
    parsed = [_parsed(line) for line in lines]
    found = [entry for one in parsed if isinstance(one, dict) and (entry := clean(one)) is not None]
    if bad := len(lines) - len(found):
        notes.append(f"{bad} of {len(lines)} lines of {path.name} cannot be read and are left out.")
    return found


def clean_event(entry: Entry) -> Entry | None:
    """An event of the progress file, its values as numbers; None: it lacks what events of its kind have."""
    kind = entry.get("event")
    if not isinstance(kind, str) or not _has(entry, EVENTS.get(kind, {})):
        return None
    steps = [entry[name] for name in ("step", "num_steps") if entry.get(name) is not None]
    if not all(_is_count(step) for step in steps) or not _is_time(entry.get("time")):
        return None
    match kind:
        case "begin":
            sizes = entry.get("eval_prompts")
            counts = numbers(sizes) if isinstance(sizes, dict) else {}
            return {**entry, "eval_prompts": {name: int(count) for name, count in counts.items() if count >= 1}}
        case "step":
            return {**entry, "metrics": numbers(entry["metrics"])}
        case "eval":
            rates = {name: numbers(one) for name, one in entry["results"].items() if isinstance(one, dict)}
            return {**entry, "results": rates}
    return entry


def clean_attempt(entry: Entry) -> Entry | None:
    """A line of the ledger; None: it tells of no attempt, or a field that is known has no sense."""
    kinds = {name: kind for name, kind in {**ATTEMPT_TEXTS, **ATTEMPT_COUNTS}.items() if name in entry}
    counts = [entry[name] for name in ATTEMPT_COUNTS if entry.get(name) is not None]
    if "attempt" not in entry or not _has(entry, kinds) or not all(_is_count(count) for count in counts):
        return None
    lists = {name: entry[name] or () for name in ATTEMPT_LISTS if name in entry}
    if not all(_is_time(entry.get(name)) for name in ATTEMPT_TIMES):
        return None
    if not all(isinstance(values, list | tuple) for values in lists.values()):
        return None
    lists = {name: [str(value) for value in values] for name, values in lists.items()}
    return {**entry, **lists, "cause": redacted_text(entry["cause"])} if entry.get("cause") else {**entry, **lists}


def numbers(fields: Mapping[str, Any]) -> Numbers:
    """The fields that are numbers; NaN and infinity are none."""
    return {str(name): float(value) for name, value in fields.items() if is_number(value)}


def is_number(value: Any) -> bool:
    """Whether it can be drawn: finite, and no larger than a float."""
    return isinstance(value, int | float) and abs(value) < 1e300 and not math.isnan(value)


def _has(entry: Entry, kinds: Kinds) -> bool:
    return all(isinstance(entry.get(name), kind) for name, kind in kinds.items())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < MOST_STEPS


def _is_time(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value < MOST_SECONDS)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
