"""What a run has left in its ledger and progress file, as values. `read_*` read files, `fold_*` are pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.run_dir.moment import moment_of
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory

REWARD = "rollout/raw_reward"
STEP_TIME = "perf/step_time"
USUAL = 9  # steps


@dataclass(frozen=True)
class Attempt:
    """One attempt: the ledger's lines about it, folded. `how` is None while it runs, or if nothing wrote its end."""

    number: int
    began: float = 0.0  # seconds since the epoch, as `ended`
    ended: float | None = None
    how: str | None = None
    host: str = ""
    pid: int = 0
    job: str | None = None
    restart: int = 0
    nodes: tuple[str, ...] = ()
    steps_done: int | None = None
    saved_step: int | None = None  # of the newest checkpoint at its end: the next step; 0: there is none
    failed_nodes: tuple[str, ...] = ()
    cause: str | None = None


@dataclass(frozen=True)
class Advance:
    """How far a run has come.

    Attributes:
        steps_done: over all attempts; a step that is repeated counts once.
        phase: what the loop is doing, e.g. `rollout`, and since when (seconds since the epoch).
        step_time_s, reward: of the last step.
    """

    steps_done: int = 0
    num_steps: int | None = None
    step: int | None = None
    phase: str | None = None
    phase_began: float | None = None
    step_time_s: float | None = None
    reward: float | None = None
    rewards: dict[int, float] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class History:
    """Attempts and advance of one run directory."""

    attempts: tuple[Attempt, ...]
    advance: Advance

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def complete(self) -> bool:
        """Whether the newest attempt ended with the run complete; a run that goes on for more steps is not."""
        return self.last is not None and self.last.how == "complete"


def read_history(directory: RunDirectory) -> History:
    """Read the history from the files; a file that is not there yet counts as empty."""
    return History(fold_attempts(read_ledger(directory.ledger)), fold_progress(_events(directory)))


def usual_step_s(directory: RunDirectory) -> float:
    """What a step takes: the median of the last ones that this run has done, in seconds; 0 where it has done none."""
    events = ProgressReader(directory.progress).new_events()
    times = [event["metrics"].get(STEP_TIME) for event in events if event["event"] == "step"]
    known = [float(step_s) for step_s in times if step_s is not None]
    return statistics.median(known[-USUAL:]) if known else 0.0


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The ledger's whole lines; one that is still being written is left out."""
    return list(ProgressReader(path).new_events())


def fold_attempts(entries: Iterable[dict[str, Any]]) -> tuple[Attempt, ...]:
    """One `Attempt` per number, in order; unknown keys are passed over, so that an old command reads a new ledger."""
    folded: dict[int, dict[str, Any]] = {}
    known = Attempt.__dataclass_fields__
    for entry in entries:
        fields = {name: value for name, value in entry.items() if name in known}
        for name in ("nodes", "failed_nodes"):
            if name in fields:
                fields[name] = tuple(fields[name] or ())
        if fields.get("job") is not None:
            fields["job"] = str(fields["job"])
        folded.setdefault(entry["attempt"], {}).update(fields)
    return tuple(Attempt(number=number, **fields) for number, fields in sorted(folded.items()))


def fold_progress(events: Iterable[dict[str, Any]]) -> Advance:
    """The state after the last event."""
    fields: dict[str, Any] = {}
    rewards: dict[int, float] = {}
    for event in events:
        kind = event["event"]
        if kind == "begin":
            fields |= {"num_steps": event["num_steps"], "step": event["step"], "phase": "start", "ended": False}
            fields["phase_began"] = event.get("time")
        elif kind == "phase":
            fields |= {**moment_of(event).fields(), "phase_began": event.get("time")}
        elif kind == "step":
            metrics = event["metrics"]
            fields |= {"step_time_s": metrics.get(STEP_TIME), "reward": metrics.get(REWARD)}
            rewards[event["step"]] = metrics.get(REWARD, float("nan"))
        elif kind == "end":
            fields |= {"ended": True, "phase": None}
    return Advance(steps_done=max(rewards, default=-1) + 1, rewards=rewards, **fields)


def _events(directory: RunDirectory) -> Iterable[dict[str, Any]]:
    return ProgressReader(directory.progress).new_events()
