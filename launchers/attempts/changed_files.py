"""The user's files, held against what an attempt found them to be (`user_files`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.mistake import Mistake

# with another of these the same seeds give other samples
DECIDE_SAMPLES = ("data", "model.path", "rollout")
NEW, GONE = "which is new", "which is gone"
WANTED = "what the run has used so far"
REMEDY = "put the old one back, or go on with --accept-changes"

Entries = Sequence[Mapping[str, Any]]
Place = tuple[str, str]  # key and path


def changed_files(before: Entries, now: Entries) -> Iterator[Mistake]:
    """Each file that both name, and whose content is another; a shard that a folder has more or less than it had.

    A file under another path than before is another setting, not another content.
    """
    then, here = ({_place(entry): entry for entry in entries} for entries in (before, now))
    for place in {**then, **here}:
        if place in then and place in here:
            found = _differences(then[place], here[place])
        elif {_folder(place)} & set(map(_folder, here if place in then else then)):
            found = iter([(str(place[1]), GONE if place in then else NEW)])
        else:
            continue
        yield from (Mistake(str(place[0]), None, f"{path}, {how}", WANTED, REMEDY) for path, how in found)


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
    return NEW if before is None else GONE if now is None else "whose content has changed"


def _fingerprint(entry: Mapping[str, Any]) -> Any:
    """None: nobody took it."""
    return entry.get("sha256") or entry.get("pieces")


def _place(entry: Mapping[str, Any]) -> Place:
    return str(entry.get("key")), str(entry.get("path"))


def _folder(place: Place) -> Place:
    return place[0], str(Path(place[1]).parent)
