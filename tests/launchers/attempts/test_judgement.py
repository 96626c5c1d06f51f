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
    outcome_when_ended,
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
    ("asked", "left_s", "how"),
    [
        (None, None, "interrupted"),
        (None, 500.0, "interrupted"),
        (None, -500.0, "interrupted"),  # the limit was raised
        ("timeout", None, "timeout"),
        ("timeout", -3.0, "timeout"),
        ("timeout", 40.0, "interrupted"),
        ("preempted", None, "preempted"),
        ("preempted", 500.0, "preempted"),
    ],
    ids=str,
)
def test_why_a_signal_has_ended_it(asked: str | None, left_s: float | None, how: str) -> None:
    """The cluster warns, and ends what has not left by then; between the two somebody may still cancel the job."""
    assert outcome_when_ended(asked, Moment("update", 2), 128.0, 15, left_s).how == how


@pytest.mark.parametrize(("step_s", "signal_s", "number"), [(128.0, 15, 300), (3.0, 15, 120), (30.0, 180, 240)])
def test_a_step_that_outlasts_the_warning_is_told_with_the_number_to_set(
    step_s: float, signal_s: int, number: int
) -> None:
    cause = outcome_when_ended("timeout", Moment("update", 2), step_s, signal_s, 0.0).cause
    assert f"the time limit (slurm.time) came in update of step 2, which had begun {step_s:.0f} s before" in cause
    assert f"found slurm.signal_s: {signal_s}" in cause
    assert f"set it to {number}, and slurm.time above it" in cause


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
    outcome = judge_records(tmp_path, [*seen, RAISED], "n1", Moment("rollout", 2))
    assert (outcome.how, outcome.failed_nodes) == ("node_failure", ("n3", "n4"))


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


def test_an_error_of_second_hand_waits_until_it_shows_who_is_gone(tmp_path: Path) -> None:
    """The surviving rank says at once that its peer is gone; the pulse misses the peer's node much later."""
    leave_records(tmp_path, [PEER_LEFT], leads=True)
    looks: list[list[Failure]] = [[], [], [LOST]]
    outcome = judge_records(tmp_path, [PEER_LEFT], "n1", Moment("update", 1), lambda: looks.pop(0), 20.0)
    assert (outcome.how, outcome.failed_nodes) == ("node_failure", ("n3",))
    assert read_record(tmp_path) == LOST
    assert (tmp_path / "failures" / "node-n3.json").exists()


def test_a_first_hand_record_that_comes_late_ends_the_wait(tmp_path: Path) -> None:
    leave_records(tmp_path, [PEER_LEFT], leads=True)

    def missed() -> list[Failure]:
        leave_records(tmp_path, [RAISED], leads=True)
        return []

    assert judge_records(tmp_path, [PEER_LEFT], "n1", Moment("update", 1), missed, 20.0) == outcome_of(RAISED)


@pytest.mark.parametrize("failure", [RAISED, KILLED, LOST], ids=["raised", "killed", "lost"])
def test_a_failure_of_first_hand_is_not_waited_for(failure: Failure, tmp_path: Path) -> None:
    def missed() -> list[Failure]:
        raise AssertionError("nobody is to be missed")

    leave_records(tmp_path, [PEER_LEFT, failure], leads=True)
    assert judge_records(tmp_path, [], "n1", Moment("update", 1), missed, 20.0) == outcome_of(failure)


def test_a_leader_that_is_being_ended_does_not_wait(tmp_path: Path) -> None:
    leave_records(tmp_path, [PEER_LEFT], leads=True)
    found = judge_records(tmp_path, [], "n1", Moment("update", 1), list, 1000.0, in_haste=lambda: True)
    assert found == outcome_of(PEER_LEFT)


def test_the_first_judgement_holds(tmp_path: Path) -> None:
    """A leader that was away comes back when others have missed it: it blames nobody else."""
    leave_records(tmp_path, [LOST], leads=False)
    seen = [lost_node("n9", Moment("rollout", 2), 30.0)]
    leave_records(tmp_path, seen, leads=True)
    assert judge_records(tmp_path, seen, "n3", Moment("rollout", 2)) == outcome_of(LOST)
    assert read_record(tmp_path) == LOST
