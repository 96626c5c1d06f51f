"""How an attempt ended, from the records that its nodes left."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from core.run_dir.moment import Moment
from launchers.attempts import judgement
from launchers.attempts.failure import Failure, read_record
from launchers.attempts.judgement import (
    agents_failed,
    judge_records,
    leave_agent_record,
    leave_records,
    lost_node,
    outcome_of,
    outcome_when_left,
)

KILLED = Failure(
    "trainer", "3", Moment("update", 1), "killed by signal 9 (SIGKILL)", 7, "n2", exit_code=-signal.SIGKILL
)
RAISED = Failure("trainer", "0", Moment("update", 1), "ValueError: no", 8, "n1", exit_code=1)
PEER_LEFT = Failure("trainer", "1", Moment("update", 1), "RuntimeError: Connection reset by peer", 9, "n1", exit_code=1)
LOST = lost_node("n3", Moment("rollout", 2), 30.0)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "RECORDS_GRACE_S", 0.0)
    monkeypatch.setattr(judgement, "RECORDS_DEADLINE_S", 0.0)


@pytest.mark.parametrize(
    ("failure", "how", "nodes"),
    [(KILLED, "node_failure", ("n2",)), (LOST, "node_failure", ("n3",)), (RAISED, "failed", ())],
    ids=["rank killed", "node lost", "rank raised"],
)
def test_a_node_is_blamed_for_what_no_program_does(failure: Failure, how: str, nodes: tuple[str, ...]) -> None:
    outcome = outcome_of(failure)
    assert (outcome.how, outcome.failed_nodes) == (how, nodes)
    assert outcome.cause == str(failure).splitlines()[0]


def test_a_lost_node_is_a_failure_of_the_phase_it_was_last_heard_in() -> None:
    cause = "not heard of for 30 s: the node, its network or its agent is gone"
    lost = lost_node("n3", Moment("rollout", 2), 30.0)
    assert lost == Failure("node", "n3", Moment("rollout", 2), cause, 0, time=lost.time)


@pytest.mark.parametrize(
    ("paused", "how"), [(None, "complete"), ("preempted", "preempted"), ("timeout", "timeout"), ("no time", "timeout")]
)
def test_ranks_that_left_in_order(paused: str | None, how: str) -> None:
    left = outcome_when_left(paused)
    assert (left.how, left.cause) == (how, f"saved and left: {paused}" if paused else "")


def test_a_run_that_somebody_stopped_is_interrupted_and_so_never_requeued() -> None:
    left = outcome_when_left("stopped")
    assert (left.how, left.cause) == ("interrupted", "saved and left: somebody stopped it")


@pytest.mark.parametrize(
    ("records", "first"),
    [([PEER_LEFT, KILLED, RAISED], KILLED), ([PEER_LEFT, RAISED], RAISED), ([PEER_LEFT, LOST], LOST)],
    ids=["killed", "raised", "lost"],
)
def test_the_leader_finds_the_first_cause(records: list[Failure], first: Failure, tmp_path: Path) -> None:
    leave_records(tmp_path, records, leads=True)
    assert judge_records(tmp_path, [], "n1", Moment("update", 1)) == outcome_of(first)
    assert read_record(tmp_path) == first


def test_an_agent_that_never_reached_the_store_is_found_by_its_record(tmp_path: Path) -> None:
    leave_records(tmp_path, [RAISED], leads=False)
    assert not agents_failed(tmp_path)
    leave_agent_record(tmp_path, 1, OSError("no way to n1"))
    assert agents_failed(tmp_path)
    assert (tmp_path / "failures" / "agent-1.json").exists()
    (tmp_path / "failures" / f"trainer-{RAISED.name}.json").unlink()
    assert judge_records(tmp_path, [], "n1", Moment()).how == "failed"
    record = read_record(tmp_path)
    assert record is not None
    assert (record.role, record.name, record.cause) == ("agent", "1", "OSError: no way to n1")
    assert (record.at, record.log) == (Moment(), str(tmp_path / "agent-1.log"))


def test_all_nodes_that_the_leader_misses_are_left_out(tmp_path: Path) -> None:
    seen = [LOST, lost_node("n4", Moment("rollout", 2), 30.0)]
    leave_records(tmp_path, seen, leads=True)
    outcome = judge_records(tmp_path, seen, "n1", Moment("rollout", 2))
    assert (outcome.how, outcome.failed_nodes) == ("node_failure", ("n3", "n4"))
    assert judge_records(tmp_path, [*seen, RAISED], "n1", Moment("rollout", 2)).failed_nodes == ("n3", "n4")


def test_a_failure_without_a_record_names_who_reported_it(tmp_path: Path) -> None:
    outcome = judge_records(tmp_path, [], "n2", Moment("rollout", 2))
    assert outcome.how == "failed"
    assert "agent n2" in outcome.cause
    assert "left no record" in outcome.cause
    record = read_record(tmp_path)
    assert record is not None
    assert (record.role, record.name, record.at, record.pid) == ("agent", "n2", Moment("rollout", 2), 0)


def test_records_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another node writes may take a moment to be seen; other files of the folder are no records."""
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "unfinished").touch()

    def written_meanwhile(there: Callable[[], bool], deadline_s: float) -> None:
        assert (there(), deadline_s) == (False, judgement.RECORDS_DEADLINE_S)
        leave_records(tmp_path, [RAISED], leads=True)
        assert there()

    monkeypatch.setattr(judgement, "wait_until", written_meanwhile)
    assert judge_records(tmp_path, [], "n1", Moment()) == outcome_of(RAISED)


def test_a_lost_leader_is_recorded_by_the_first_who_misses_it(tmp_path: Path) -> None:
    leave_records(tmp_path, [RAISED], leads=False)
    assert read_record(tmp_path) is None
    leave_records(tmp_path, [LOST], leads=False)
    leave_records(tmp_path, [lost_node("n9", Moment("rollout", 2), 30.0)], leads=False)
    assert read_record(tmp_path) == LOST


def test_a_leader_that_misses_a_node_judges_before_it_leaves_a_record(tmp_path: Path) -> None:
    leave_records(tmp_path, [LOST], leads=True)
    assert read_record(tmp_path) is None
