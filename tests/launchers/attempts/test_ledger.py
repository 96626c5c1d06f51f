from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from core.run_dir.progress import Progress
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.attempt import RunBusy, note_complete, open_attempt
from launchers.attempts.failure import Failure
from launchers.attempts.ledger import Ledger
from launchers.attempts.outcome import Outcome, read_outcome, write_outcome


def test_an_attempt_has_two_lines_with_nodes_steps_and_reason(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with open_attempt(directory, ["n1", "n2"], job="7", restart=1) as attempt:
        for step in range(3):
            Progress(directory.progress).event("step", step=step, metrics={})
        attempt.end(Outcome("timeout", cause="saved and left: timeout"), 0)
    (entry,) = Ledger(directory).attempts()
    assert (entry.job, entry.restart, entry.nodes) == ("7", 1, ("n1", "n2"))
    assert (entry.how, entry.steps_done, entry.cause) == ("timeout", 3, "saved and left: timeout")
    assert json.loads(directory.ledger.read_text().splitlines()[1])["next_step"] == 3


def test_what_is_saved_at_the_end_is_noted(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for saved in (0, 3):
        if saved:
            (directory.checkpoints / f"step_{saved:06d}").mkdir(parents=True)
        with open_attempt(directory, ["n1"]) as attempt:
            attempt.end(Outcome("timeout"), 0)
    assert [entry.saved_step for entry in Ledger(directory).attempts()] == [0, 3]


def test_steps_of_earlier_attempts_are_not_counted_again(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for steps in ([0, 1], [1, 2, 3]):
        with open_attempt(directory, ["n1"]) as attempt:
            time.sleep(0.01)
            for step in steps:
                Progress(directory.progress).event("step", step=step, metrics={})
            attempt.end(Outcome("failed"), 1)
    assert [entry.steps_done for entry in Ledger(directory).attempts()] == [2, 3]


def test_a_run_stopped_when_all_had_been_written_is_complete_once_somebody_looks(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    note_complete(directory)
    assert not directory.ledger.exists()
    with open_attempt(directory, ["n1"], job="7") as attempt:
        Progress(directory.progress).event("step", step=0, metrics={})
        attempt.end(Outcome("interrupted", cause="stopped by a signal"), 143)
    for _ in range(2):
        note_complete(directory)
        (entry,) = Ledger(directory).attempts()
        assert (entry.how, entry.job, entry.steps_done, entry.cause) == ("complete", "7", 1, Outcome("complete").cause)
    assert len(directory.ledger.read_text().splitlines()) == 3


def test_what_an_attempt_that_was_killed_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """Its key, and what else it makes for its time only."""
    directory = RunDirectory(tmp_path)
    with open_attempt(directory, ["n1"]) as attempt:
        killed = AttemptFolder(attempt.folder)
        killed.canary.touch()
    assert killed.key.exists()
    assert killed.reserve.exists()
    with open_attempt(directory, ["n1"]) as attempt:
        assert AttemptFolder(attempt.folder).key.exists()
        assert [path for path in killed.made_for_its_time if path.exists()] == []


def test_the_key_is_its_users_only_and_gone_at_the_end(tmp_path: Path) -> None:
    with open_attempt(RunDirectory(tmp_path), ["n1"]) as attempt:
        path = AttemptFolder(attempt.folder).key
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_text()) == 48
        attempt.end(Outcome("complete"), 0)
        assert not path.exists()


def test_one_attempt_at_a_time_and_the_message_names_who(tmp_path: Path) -> None:
    with open_attempt(RunDirectory(tmp_path), ["n1"]):
        busy = pytest.raises(RunBusy, match=r"is in use by another ebbtide process \(pid \d+ on ")
        with busy, open_attempt(RunDirectory(tmp_path), ["n1"], wait_s=0.6):
            pass
    with open_attempt(RunDirectory(tmp_path), ["n1"]) as second:
        assert second.number == 2


def test_an_attempt_that_nobody_closed_is_closed_by_the_next_one(tmp_path: Path) -> None:
    """Its leader's node is gone; a survivor left a record that names it."""
    directory = RunDirectory(tmp_path)
    with open_attempt(directory, ["n1", "n2"]) as attempt:
        Failure("node", "n1", Moment("update", 3), "not heard of for 30 s", 0).write(attempt.folder / "failure.json")
    with open_attempt(directory, ["n2"]):
        pass
    with open_attempt(directory, ["n2"]):
        first, second, third = Ledger(directory).attempts()
    assert (first.how, first.failed_nodes) == ("node_failure", ("n1",))
    assert "update of step 3" in (first.cause or "")
    assert (second.how, second.failed_nodes) == ("lost", ())
    assert third.how is None


def test_an_outcome_reads_back(tmp_path: Path) -> None:
    outcome = Outcome("node_failure", ("n1",), "why")
    assert read_outcome(tmp_path) is None
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path) == outcome
    assert Outcome.from_json(outcome.to_json()) == outcome
