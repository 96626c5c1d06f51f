"""Starts real trainer ranks for a test: several cases share one launch, because start-up costs more than they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 240.0


def run_ranks(folder: Path, world_size: int, cases: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Run `cases` on `world_size` processes; what every rank agrees on, by case name.

    Args:
        folder: an existing empty folder for files of this launch.
    """
    folder.mkdir(parents=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    processes = [_start(folder, rank, world_size) for rank in range(world_size)]
    try:
        _wait(folder, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    outcomes = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world_size)]
    return {name: _agreed(name, [outcome[name] for outcome in outcomes]) for name in cases}


def _start(folder: Path, rank: int, world_size: int) -> subprocess.Popen[bytes]:
    sizes = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    environment = {**os.environ, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("rank_main.py")), str(folder / "cases.json")]
    with (folder / f"rank{rank}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def _wait(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    waiting = dict(enumerate(processes))
    while waiting:
        for rank, process in list(waiting.items()):
            if process.poll() is None:
                continue
            assert process.returncode == 0, f"rank {rank}:\n{(folder / f'rank{rank}.log').read_text()[-4000:]}"
            del waiting[rank]
        assert time.monotonic() < deadline, f"ranks {sorted(waiting)} are not done after {DEADLINE_S:.0f} s"
        time.sleep(0.05)


def _agreed(name: str, outcomes: list[dict[str, Any]]) -> list[Any]:
    for rank, outcome in enumerate(outcomes):
        if "error" in outcome:
            if all("error" in other for other in outcomes):
                return [outcome["error"]]
            pytest.fail(f"case {name}, rank {rank}:\n{outcome['traceback']}")
    results: list[Any] = outcomes[0]["results"]
    for rank, outcome in enumerate(outcomes):
        assert outcome["results"] == results, f"case {name}: rank {rank} and rank 0 differ"
    return results
