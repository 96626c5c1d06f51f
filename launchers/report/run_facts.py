"""What a page tells of a run, as values, read from its directory; what cannot be read becomes a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.run_dir.moment import moment_of
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import History, fold_attempts, fold_progress
from launchers.report.json_lines import Entry, Numbers, clean_attempt, clean_event, read_entries
from launchers.report.settings import flat
from launchers.show.run_status import runs_here


@dataclass(frozen=True)
class Span:
    """A phase of a step, between two moments in seconds since the epoch."""

    phase: str
    step: int | None
    began: float
    ended: float


@dataclass(frozen=True)
class RunFacts:
    """A run as its directory tells it.

    Attributes:
        name: the name of its directory, with as much before it as tells it from the others of a report.
        alive: an attempt without an end has its process on this machine.
        metrics: step -> name -> value; of a repeated step the last counts.
        evaluations: likewise, step -> set -> rate -> value.
        num_prompts: evaluation set -> number of its prompts; empty in runs of early versions.
        settings: of run.yaml, keys with dots.
        notes: sentences about what could not be read.
    """

    directory: RunDirectory
    name: str
    history: History
    alive: bool
    metrics: dict[int, Numbers]
    evaluations: dict[int, dict[str, Numbers]]
    num_prompts: dict[str, int]
    spans: tuple[Span, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]


def read_runs(directories: Sequence[RunDirectory]) -> list[RunFacts]:
    """Read run directories, under names that differ."""
    paths = [directory.path for directory in directories]
    return [read_run(directory, _told_apart(directory.path, paths)) for directory in directories]


def _told_apart(path: Path, others: Sequence[Path]) -> str:
    """The last parts of a path, as few as no other path has."""
    for number in range(1, len(path.parts)):
        parts = path.parts[-number:]
        if not any(other != path and other.parts[-number:] == parts for other in others):
            return "/".join(parts)
    return str(path)


def read_run(directory: RunDirectory, name: str | None = None) -> RunFacts:
    """Read a run directory; a file that is missing or damaged costs what it would have told, and a note."""
    notes: list[str] = []
    events = read_entries(directory.progress, clean_event, notes)
    attempts = fold_attempts(read_entries(directory.ledger, clean_attempt, notes))
    history = History(attempts, fold_progress(events))
    return RunFacts(
        directory=directory,
        name=name or directory.path.name,
        history=history,
        alive=history.last is not None and history.last.how is None and runs_here(history.last),
        metrics={event["step"]: event["metrics"] for event in events if event["event"] == "step"},
        evaluations={event["step"]: event["results"] for event in events if event["event"] == "eval"},
        num_prompts=next((event["eval_prompts"] for event in reversed(events) if event["event"] == "begin"), {}),
        spans=tuple(spans(events)),
        settings=flat(_settings(directory.run_file, notes)),
        notes=tuple(notes),
    )


def spans(events: Iterable[Entry]) -> Iterable[Span]:
    """The phases between one event and the next; what follows the last event is not known."""
    open_phase: tuple[str, int | None, float] | None = None
    for event in events:
        now = event.get("time")
        if now is None or event["event"] == "eval":
            continue
        if open_phase is not None:
            yield Span(*open_phase, max(now, open_phase[2]))
            open_phase = None
        if event["event"] == "phase":
            moment = moment_of(event)
            open_phase = (moment.phase, moment.step, now)


def _settings(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}.")
    except (yaml.YAMLError, ValueError, RecursionError):
        notes.append(f"{path.name} is no YAML that can be read; the settings are left out.")
    else:
        if isinstance(loaded, dict):
            return loaded
        notes.append(f"{path.name} holds no mapping; the settings are left out.")
    return {}
