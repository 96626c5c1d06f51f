from __future__ import annotations

from pathlib import Path

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import fold_attempts, fold_progress, read_history, usual_step_s
from launchers.attempts.job_record import JobRecord, read_record
from tests.support.histories import BEGAN, began, ended, step, write_history

BEGIN = {"event": "begin", "time": BEGAN, "step": 0, "num_steps": 4}


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    history = read_history(write_history(tmp_path))
    assert (history.attempts, history.last, history.complete) == ((), None, False)
    assert history.advance.num_steps is None


def test_both_lines_of_an_attempt_make_one() -> None:
    (first, second) = fold_attempts([began(1), ended(1, "timeout", steps_done=2), began(2, restart=1, new_key=3)])
    assert (first.how, first.steps_done, first.nodes, first.job) == ("timeout", 2, ("n1", "n2"), "7")
    assert (second.number, second.how, second.restart) == (2, None, 1)


def test_a_complete_run_that_goes_on_for_more_steps_is_not_complete(tmp_path: Path) -> None:
    complete = [began(1), ended(1, "complete")]
    assert read_history(write_history(tmp_path / "ended", complete)).complete
    assert not read_history(write_history(tmp_path / "longer", [*complete, began(2)])).complete


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    directory = write_history(tmp_path, [began(1)])
    with directory.ledger.open("a") as file:
        file.write('{"attempt": 1, "ended"')
    assert [attempt.how for attempt in read_history(directory).attempts] == [None]


def test_progress_of_a_repeated_step_counts_once() -> None:
    phase = {"event": "phase", "time": BEGAN + 9, "phase": "rollout", "step": 1}
    advance = fold_progress([BEGIN, step(0, 0.1), step(1, 0.2), {**BEGIN, "step": 1}, phase, step(1, 0.4)])
    assert (advance.steps_done, advance.num_steps, advance.reward, advance.step_time_s) == (2, 4, 0.4, 16.6)
    assert (advance.phase, advance.step, advance.phase_began) == ("rollout", 1, BEGAN + 9)
    assert advance.rewards == {0: 0.1, 1: 0.4}


def test_phases_of_an_earlier_version_were_one_text() -> None:
    phase = {"event": "phase", "time": BEGAN + 9, "phase": "rollout step=1"}
    advance = fold_progress([BEGIN, step(0, 0.1), phase])
    assert (advance.phase, advance.step, advance.phase_began) == ("rollout", 1, BEGAN + 9)


def test_the_end_of_a_run() -> None:
    advance = fold_progress([BEGIN, step(0), {"event": "end", "time": BEGAN, "step": 4}])
    assert advance.ended
    assert advance.phase is None


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    directory = write_history(tmp_path)
    assert read_record(directory) is None
    record = JobRecord("7", chain=("7", "8"), site="/s.yaml", script="x.sh", earlier=("3",))
    record.write(directory)
    assert read_record(directory) == record
    assert record.job_ids == ("7", "8")


def test_what_a_step_usually_takes(tmp_path: Path) -> None:
    """The median of the last nine: one that waited for something is not usual."""
    assert usual_step_s(RunDirectory(tmp_path)) == 0.0
    times = [500.0] * 3 + [10.0, 11.0, 12.0, 13.0, 900.0, 10.5, 11.5, 12.5, 13.5]
    steps = [{"event": "step", "step": n, "metrics": {"perf/step_time": time}} for n, time in enumerate(times)]
    directory = write_history(tmp_path, progress=[*steps, {"event": "step", "step": 99, "metrics": {}}])
    assert usual_step_s(directory) == 12.0
