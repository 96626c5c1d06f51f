"""The schedule that traces a step, around the built-in one and a user's, over parts with nothing real behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.doors import SCHEDULE
from core.loop.in_turns import run
from core.loop.state import LoopState
from core.run_dir.trace_names import rank_trace
from core.samples import TrainSample, UpdateResult
from launchers.traces.breakdown import BETWEEN, breakdown
from launchers.traces.rank_trace import read_rank_trace
from tests.support.door_files import write_file
from tests.support.loop_fakes import Fakes, Trainer

OVERLAPPING = """
def run(parts, every, start_timeout_s):
    assert (every, start_timeout_s) == (2, 7)
    return parts.num_steps == 1


run.overlaps = ("rollout", "update")
"""


class Multiplies(Trainer):
    """A trainer whose update has an operator."""

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        torch.mm(torch.ones(4, 4), torch.ones(4, 4))
        return super().update(samples)


def profiling(folder: Path, step: int, **options: Any) -> Any:
    return SCHEDULE.build("profile", {"step": step, "folder": str(folder), "traced": "in_turns", **options})


def test_the_step_is_traced_and_is_the_last_one(tmp_path: Path) -> None:
    """The calls are those of the schedule itself in a run that ends there; one trace, whose phases fill the step."""
    fakes, plain = Fakes(LoopState(0)), Fakes(LoopState(0))
    fakes.parts.trainer = Multiplies(fakes.calls, fakes.updated)
    plain.parts.num_steps = 1
    assert profiling(tmp_path, 0)(fakes.parts) is run(plain.parts) is True
    assert (fakes.calls, fakes.phases) == (plain.calls, plain.phases)
    assert [path.name for path in tmp_path.iterdir()] == [rank_trace(0)]
    trace = read_rank_trace(tmp_path / rank_trace(0), 0)
    assert [phase.name for phase in trace.phases] == ["sync", "eval", "rollout", "score", "update"]
    edges = [edge for phase in trace.phases for edge in (phase.begin, phase.end)]
    assert edges == sorted(edges)
    assert trace.step.begin <= edges[0]
    assert edges[-1] <= trace.step.end
    times = {one.name: one for one in breakdown(trace)}
    assert "aten::mm" in times["update"].operators
    assert "aten::mm" not in times["rollout"].operators
    assert times[BETWEEN].length_us >= 0


def test_steps_before_it_are_not_traced(tmp_path: Path) -> None:
    fakes = Fakes()
    assert profiling(tmp_path, 1)(fakes.parts)
    assert [call for call in fakes.calls if call.startswith("stepped")] == ["stepped 0", "stepped 1"]
    trace = read_rank_trace(tmp_path / rank_trace(0), 0)
    assert [phase.name for phase in trace.phases] == ["sync", "rollout", "score", "update"]


def test_a_run_that_pauses_before_it_leaves_no_trace(tmp_path: Path) -> None:
    fakes = Fakes(pause_at=1)
    assert profiling(tmp_path, 1)(fakes.parts) is False
    assert list(tmp_path.iterdir()) == []


def test_a_users_schedule_keeps_its_options_and_what_it_says_of_itself(tmp_path: Path) -> None:
    traced = f"{write_file(tmp_path, OVERLAPPING)}:run"
    schedule = profiling(tmp_path, 0, traced=traced, traced_options={"every": 2}, settings={"start_timeout_s": 7})
    assert schedule.overlaps == ("rollout", "update")
    assert schedule.samples
    assert schedule(Fakes().parts) is True
