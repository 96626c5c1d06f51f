"""Trainer and engine that give memory back to each other: the same run, number for number, as without.

But for how the engine rounds its log-probs: that depends on which requests happen to meet in a batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_runs import ebbtide, write_run

pytestmark = pytest.mark.run


def run(folder: Path, offload: str) -> tuple[list[dict[str, Any]], str]:
    file = write_run(folder, placement={"offload": offload})
    done = ebbtide("run", str(file), "--run-dir", str(folder / "run"))
    log = folder / "run" / "attempts" / "1" / "trainer-0.log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.read_text()[-3000:]}"
    events = [json.loads(line) for line in (folder / "run" / "progress.jsonl").read_text().splitlines()]
    return [event["metrics"] for event in events if event["event"] == "step"], log.read_text()


def test_giving_memory_back_changes_nothing(tmp_path: Path) -> None:
    plain, log = run(tmp_path / "off", "off")
    assert "residency=" not in log
    assert "planned memory" in log
    parked, log = run(tmp_path / "on", "on")
    assert len(plain) == len(parked) == 4
    for ours, theirs in zip(parked, plain, strict=True):
        assert ours.pop("perf/switch_time") > 0
        same = {name for name in theirs if not name.startswith("perf/")}
        rounded = {name for name in same if "logprob_abs_diff" in name}
        assert len(rounded) == 2
        assert {name: ours[name] for name in same - rounded} == {name: theirs[name] for name in same - rounded}
        assert {name: ours[name] for name in rounded} == pytest.approx(
            {name: theirs[name] for name in rounded}, abs=1e-6
        )
    assert "residency=rollout" in log
    assert "planned memory" in log
    assert "plan_gib=0.00" not in log
    assert "trainer: nothing" in log
