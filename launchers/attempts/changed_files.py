"""The user's files, held against what an attempt found them to be (`user_files`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.mistake import Mistake

# with another of these the same seeds give other samples
DECIDE_SAMPLES = ("data", "model.path", "rollout")
REMEDY = "put the old one back, or go on with --accept-changes"

Entries = Sequence[Mapping[str, Any]]


def changed_files(before: Entries, now: Entries) -> Iterator[Mistake]:
    """Each file that both name, and whose content is another; a file that has gone."""
    known = {_place(entry): entry for entry in now}
    for entry in before:
        there = known.get(_place(entry))
        for path, how in _differences(entry, there or {}):
            yield Mistake(str(entry.get("key")), None, f"{path}, {how}", "what the run has used so far", REMEDY)


def decides_samples(mistake: Mistake) -> bool:
    """Whether the run would go on with samples that it would not have made before."""
    return mistake.key.startswith(DECIDE_SAMPLES)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    path = str(before.get("path"))
    files, there = before.get("files"), now.get("files")
    if isinstance(files, dict) and isinstance(there, dict):
        for name in {**files, **there}:
            if files.get(name) != there.get(name):
                yield f"{path}/{name}", _how(files.get(name), there.get(name))
    elif (was := _fingerprint(before)) != (here := _fingerprint(now)) and was is not None:
        yield path, str(now.get("problem") or _how(was, here))


def _how(before: Any, now: Any) -> str:
    return "which is new" if before is None else "which is gone" if now is None else "whose content has changed"


def _fingerprint(entry: Mapping[str, Any]) -> Any:
    """None: nobody took it."""
    return entry.get("sha256") or entry.get("pieces")


def _place(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    return entry.get("key"), entry.get("path")
