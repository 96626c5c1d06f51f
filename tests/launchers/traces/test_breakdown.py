"""The numbers of a step, from traces made by hand, and the table of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from launchers.traces.breakdown import BETWEEN, NO_LAUNCH, breakdown, self_times, united
from launchers.traces.rank_trace import RankTrace
from launchers.traces.table import time_table
from tests.support.traces import events, rank_of, span


def shown(*traces: RankTrace) -> list[list[str]]:
    """The cells of the table's rows."""
    console = Console(file=io.StringIO(), width=200)
    console.print(time_table(3, [breakdown(trace) for trace in traces]))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return [lines[0].split("  ")[:1], *([c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line)]


def test_phases_and_what_lies_between_add_up_to_the_step() -> None:
    times = {one.name: one.length_us for one in breakdown(rank_of())}
    assert times == {"sync": 10, "rollout": 30, "update": 50, BETWEEN: 10}


def test_operators_count_where_they_began_without_those_within_them() -> None:
    """The backward pass is on a thread of its own: an operator of the same time there is not within."""
    times = {one.name: one for one in breakdown(rank_of())}
    assert times["update"].operators == {"aten::linear": 20 - 8 - 1, "aten::mm": 8 + 12, "aten::t": 1}
    assert times[BETWEEN].operators == {"aten::stack": 2}
    assert times["sync"].operators == times["rollout"].operators == {}


def test_an_operator_that_begins_where_another_ends_is_not_within() -> None:
    one, other = span("cpu_op", "a", 0, 10), span("cpu_op", "b", 10, 5)
    assert [(event["name"], us) for event, us in self_times([other, one])] == [("a", 10), ("b", 5)]


def test_a_phase_that_comes_twice_counts_together() -> None:
    twice = [*events(), span("user_annotation", "phase sync", 1096, 3)]
    times = {one.name: one.length_us for one in breakdown(RankTrace(0, twice))}
    assert (times["sync"], times[BETWEEN]) == (13, 7)


def test_bytes_of_a_sync_are_those_of_its_buckets() -> None:
    assert {one.name: one.moved_bytes for one in breakdown(rank_of()) if one.moved_bytes} == {"sync": 4500}


def test_a_gpu_is_busy_where_anything_runs_and_work_belongs_to_who_launched_it() -> None:
    """Two kernels overlap for 5 µs; of the copy 5 µs lie beyond the phase."""
    times = {one.name: one for one in breakdown(rank_of(gpu=True))}
    assert times["update"].gpu_busy_us == 15 + 5
    assert times["update"].gpu_operators == {"aten::mm": 20, NO_LAUNCH: 10}
    assert times["sync"].gpu_busy_us == 0
    assert all(one.gpu_busy_us is None for one in breakdown(rank_of()))


def test_united_ranges_do_not_touch() -> None:
    assert united([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]


def test_the_table_has_a_row_for_each_phase() -> None:
    title, sync, rollout, update, between = shown(rank_of())
    assert title == ["step 3: 0.000 s, 1 trainer rank"]
    assert sync == ["sync", "0.000", "10.0%", "0.00 MB", "–"]
    assert rollout == ["rollout", "0.000", "30.0%", "–", "–"]
    assert update == ["update", "0.000", "50.0%", "–", "aten::mm 0.000, aten::linear 0.000, aten::t 0.000"]
    assert between[:3] == [BETWEEN, "0.000", "10.0%"]


def test_the_table_of_several_ranks_with_gpus_has_their_range_and_idle_time() -> None:
    """Ten thousand times as long, so that seconds can be read."""
    first, second = (longer(rank_of(rank, gpu=True), factor) for rank, factor in enumerate((10_000, 20_000)))
    title, sync, rollout, update, _ = shown(first, second)
    assert title == ["step 3: 1.500 s, 2 trainer ranks"]
    assert sync[1:4] == ["0.150 (0.100 to 0.200)", "10.0%", "100%"]
    assert rollout[3] == "–"
    assert update[1:4] == ["0.750 (0.500 to 1.000)", "50.0%", "60%"]
    assert update[5] == f"aten::mm 0.300, {NO_LAUNCH} 0.150"


def longer(trace: RankTrace, factor: float) -> RankTrace:
    stretched = [
        {**event, "ts": event["ts"] * factor, **({"dur": event["dur"] * factor} if "dur" in event else {})}
        for event in trace.events
    ]
    return RankTrace(trace.rank, stretched)


@pytest.mark.parametrize("gpu", [True, False])
def test_nothing_is_counted_twice(gpu: bool) -> None:
    phases = breakdown(rank_of(gpu=gpu))
    assert sum(one.length_us for one in phases) == 100
    assert sum(sum(one.operators.values()) for one in phases) == 20 + 12 + 2
