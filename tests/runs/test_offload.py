"""Trainer and engine that give memory back to each other: the same run, number for number, as without.

But for how the engine rounds its log-probs: that depends on which requests happen to meet in a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_runs import ebbtide, events, write_run

pytestmark = pytest.mark.run


def steps_and_log(run_dir: Path) -> tuple[list[dict[str, Any]], str]:
    """Metrics of each step, and what rank 0 logged."""
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    return metrics, (run_dir / "attempts" / "1" / "trainer-0.log").read_text()


def test_giving_memory_back_changes_nothing(straight: Path, tmp_path: Path) -> None:
    plain, log = steps_and_log(straight)
    assert "residency=" not in log
    assert "planned memory" in log
    file = write_run(tmp_path, placement={"offload": "on"})
    done = ebbtide("run", str(file), "--run-dir", str(tmp_path / "out"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    parked, log = steps_and_log(tmp_path / "out")
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
