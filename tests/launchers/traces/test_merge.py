"""Traces of several ranks in one: processes, clocks, arrows, and what goes where there is too much."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.mistake import Wrong
from core.run_dir.trace_names import is_ours
from launchers.traces.merge import PIDS_PER_RANK, merge
from launchers.traces.rank_trace import RankTrace, read_rank_trace
from tests.support.traces import events, rank_of, write_trace


def names(merged: dict[str, Any]) -> dict[int, str]:
    return {one["pid"]: one["args"]["name"] for one in merged["traceEvents"] if one["name"] == "process_name"}


def spans(merged: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in merged["traceEvents"] if one["ph"] == "X"]


def test_each_rank_and_each_gpu_is_a_process_of_its_own() -> None:
    merged, cuts = merge([rank_of(0, gpu=True), rank_of(1)], 1000)
    assert cuts == []
    assert names(merged) == {0: "trainer 0", 1: "trainer 0, GPU 0", PIDS_PER_RANK: "trainer 1"}
    assert Counter(one["pid"] for one in spans(merged)) == {0: 11, 1: 3, PIDS_PER_RANK: 11}
    threads = [(one["pid"], one["tid"]) for one in merged["traceEvents"] if one["name"] == "thread_name"]
    assert threads == [(0, 1), (PIDS_PER_RANK, 1)]
    assert json.loads(json.dumps(merged)) == merged


def test_ranks_stand_on_one_clock_whose_zero_is_the_earliest_step() -> None:
    """The second rank counts from another zero, and began its step 30 µs later."""
    merged, _ = merge([rank_of(0, 1000, base_us=500), rank_of(1, 1530, base_us=0)], 1000)
    steps = {one["pid"]: one["ts"] for one in spans(merged) if one["name"] == "step 3"}
    assert steps == {0: 0, PIDS_PER_RANK: 30}


def test_arrows_of_different_ranks_have_different_names() -> None:
    merged, _ = merge([rank_of(0), rank_of(1)], 1000)
    arrows = [(one["ph"], one["pid"], one["id"]) for one in merged["traceEvents"] if one["ph"] in "sf"]
    assert arrows == [
        ("s", 0, "0.1"),
        ("f", 0, "0.1"),
        ("s", PIDS_PER_RANK, "1.1"),
        ("f", PIDS_PER_RANK, "1.1"),
    ]


def test_the_longest_stay_where_there_are_too_many_and_our_ranges_always() -> None:
    merged, (cut,) = merge([rank_of(0)], 8)
    assert (cut.rank, cut.kept, cut.found, cut.shorter_us) == (0, 8, 11, 12)
    ours = [one["name"] for one in spans(merged) if is_ours(one["name"])]
    assert len(ours) == 6
    assert {one["name"]: one["dur"] for one in spans(merged) if not is_ours(one["name"])} == {
        "aten::linear": 20,
        "aten::mm": 12,
    }
    assert not [one for one in merged["traceEvents"] if one["ph"] in "sf"]


def test_our_ranges_alone_may_be_more_than_asked_for() -> None:
    merged, (cut,) = merge([rank_of(0)], 1)
    assert cut.kept == len(spans(merged)) == 6


def test_a_file_is_read_on_the_clock_of_its_zero(tmp_path: Path) -> None:
    trace = read_rank_trace(write_trace(tmp_path / "rank", 5_000_000), 0)
    assert trace.base_us == 5_000
    assert [phase.name for phase in trace.phases] == ["sync", "rollout", "update"]
    assert (trace.step.begin, trace.step.length) == (1000, 100)


def test_a_file_that_is_missing_or_cut_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=r"found .*none: FileNotFoundError; wanted the trace of trainer rank 3: its log"):
        read_rank_trace(tmp_path / "none", 3)
    whole = write_trace(tmp_path / "rank")
    whole.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(Wrong, match=r"found .*rank: EOFError; wanted the trace of trainer rank 0"):
        read_rank_trace(whole, 0)


def test_a_trace_without_its_step_is_told() -> None:
    without = RankTrace(2, [one for one in events() if one["name"] != "step 3"])
    with pytest.raises(Wrong, match="found 0 steps in the trace of trainer rank 2; wanted one"):
        merge([without], 10)
