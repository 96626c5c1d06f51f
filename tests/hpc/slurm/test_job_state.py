"""What Slurm prints, read into values; the listings that they come from are in test_queue.py."""

from __future__ import annotations

import pytest

from hpc.slurm.job_state import FAILED, LIVE, JobState, fold, read_nodes, read_reason, read_time, read_time_limit
from hpc.slurm.queue import read_squeue


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("n[1-2]", ("n1", "n2")), ("None assigned", ()), ("(null)", ()), ("", ()), ("n[1", ())],
)
def test_nodes(text: str, nodes: tuple[str, ...]) -> None:
    assert read_nodes(text) == nodes


def test_times_and_reasons() -> None:
    assert [read_time(text) for text in ("1795400799", "0", "N/A", "Unknown", "")] == [1795400799.0, 0.0] + [None] * 3
    assert [read_reason(text) for text in ("Priority", "None", "")] == ["Priority", None, None]
    assert [read_time_limit(text) for text in ("1-02:03:04", "0:05")] == [93784, 5]


def test_a_state_is_live_or_has_ended_or_is_unknown() -> None:
    assert {JobState(state).has_ended for state in LIVE} == {False}
    assert {JobState(state).is_live for state in LIVE} == {True}
    for state in (*FAILED, "COMPLETED", "GONE"):
        assert (JobState(state).is_live, JobState(state).has_ended) == (False, True)
    assert (JobState("UNKNOWN").is_live, JobState("UNKNOWN").has_ended) == (False, False)
    assert [str(JobState("PENDING", reason)) for reason in (None, "Priority")] == ["PENDING", "PENDING (Priority)"]


def test_a_whole_runs_from_the_first_start_to_the_last_end_on_all_nodes() -> None:
    parts = [
        JobState("RUNNING", None, ("n1", "n2"), 20.0, 90.0, 60, restarts=2),
        JobState("RUNNING", "Late", ("n2", "n3"), 10.0, 80.0, 60, restarts=5),
        JobState("RUNNING"),
    ]
    assert fold(parts) == JobState("RUNNING", "Late", ("n1", "n2", "n3"), 10.0, 90.0, 60, restarts=2)
    assert fold([JobState("PENDING")]) == JobState("PENDING")


def test_a_whole_has_the_exit_code_of_a_part_that_failed() -> None:
    assert fold([JobState("COMPLETED", exit_code=0), JobState("COMPLETED", exit_code=0)]).exit_code == 0
    assert fold([JobState("NODE_FAIL", exit_code=0), JobState("FAILED", exit_code=4)]).exit_code == 4
    assert fold([JobState("COMPLETED", exit_code=9), JobState("FAILED", exit_code=3)]).exit_code == 3


@pytest.mark.parametrize(
    ("elements", "found"),
    [("[1-2,5-7:2%4]", [1, 2, 5, 7]), ("3", [3]), ("[0,4]", [0, 4]), ("[2-8:3]", [2, 5, 8])],
)
def test_the_elements_of_a_pending_array(elements: str, found: list[int]) -> None:
    row = f"6_{elements} |PENDING |None | |N/A |N/A |2:00 |0 |0 |\n"
    assert sorted(int(job.partition("_")[2]) for job in read_squeue(row, [f"6_{n}" for n in range(10)])) == found
