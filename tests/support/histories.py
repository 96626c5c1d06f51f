"""Run directories with a made-up past: ledger, progress, logs, a job's record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.job_record import JobRecord

BEGAN = 1_800_000_000.0


def lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def began(attempt: int, job: str | None = "7", restart: int = 0, **more: Any) -> dict[str, Any]:
    fields = {"attempt": attempt, "began": BEGAN + 1000 * attempt, "host": "n1", "pid": 1, "job": job}
    return {**fields, "restart": restart, "nodes": ["n1", "n2"], **more}


def ended(attempt: int, how: str, **more: Any) -> dict[str, Any]:
    return {"attempt": attempt, "ended": BEGAN + 1000 * attempt + 500, "how": how, "exit_code": 1, **more}


def step(number: int, reward: float = 0.5) -> dict[str, Any]:
    metrics = {"rollout/raw_reward": reward, "perf/step_time": 16.6}
    return {"event": "step", "time": BEGAN, "step": number, "metrics": metrics}


def write_history(
    path: Path,
    ledger: Iterable[dict[str, Any]] = (),
    progress: Iterable[dict[str, Any]] = (),
    record: JobRecord | None = None,
    logs: Iterable[str] = (),
) -> RunDirectory:
    directory = RunDirectory(path)
    path.mkdir(parents=True, exist_ok=True)
    directory.run_file.write_text("{}\n")
    lines(directory.ledger, ledger)
    lines(directory.progress, progress)
    if record is not None:
        record.write(directory)
    for name in logs:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"one\ntwo of {name}\n")
    return directory
