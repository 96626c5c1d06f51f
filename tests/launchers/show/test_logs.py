from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import read_history
from launchers.attempts.job_record import JobRecord
from launchers.show.log_files import LogsError, Tail, choose, find_logs, latest_attempt
from tests.support.histories import began, ended, write_history

ATTEMPT_2 = [
    f"attempts/2/{name}.log"
    for name in ("agent-0", "agent-1", "trainer-0", "trainer-10", "trainer-2", "torchrun-0", "node2-rewards.0")
] + [f"attempts/2/node{n}-engine0.{i}.log" for n, i in ((0, 1), (0, 2), (1, 1))]
JOB = ["slurm/7/0/task-0.log", "slurm/7/1/task-0.log", "slurm/7/1/task-1.log", "slurm/batch-7.log"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    ledger = [began(1), ended(1, "timeout"), began(2, restart=1)]
    logs = ["attempts/1/trainer-0.log", *ATTEMPT_2, *JOB, "attempts/2/store", "attempts/2/failure.json"]
    return write_history(tmp_path, ledger, logs=logs)


def names(run: RunDirectory, role: str | None = None, rank: int | None = None, attempt: int = 2) -> list[str]:
    logs = find_logs(run, read_history(run).attempts, attempt)
    return [os.path.relpath(log.path, run.path) for log in choose(logs, role, rank)]


def test_with_nothing_asked_for_the_first_trainer_tells_the_story(run: RunDirectory) -> None:
    assert latest_attempt(run) == 2
    assert names(run) == ["attempts/2/trainer-0.log"]
    assert names(run, attempt=1) == ["attempts/1/trainer-0.log"]


@pytest.mark.parametrize(
    ("role", "rank", "wanted"),
    [
        ("trainer", None, ["trainer-0.log", "trainer-2.log", "trainer-10.log"]),
        (None, 10, ["trainer-10.log"]),
        ("engine", None, ["node0-engine0.1.log", "node0-engine0.2.log", "node1-engine0.1.log"]),
        ("engine", 0, ["node0-engine0.1.log", "node0-engine0.2.log"]),
        ("agent", 1, ["agent-1.log"]),
        ("rewards", None, ["node2-rewards.0.log"]),
    ],
)
def test_by_role_and_rank(run: RunDirectory, role: str | None, rank: int | None, wanted: list[str]) -> None:
    assert names(run, role, rank) == [f"attempts/2/{name}" for name in wanted]


def test_task_logs_are_those_of_the_attempts_start(run: RunDirectory) -> None:
    assert names(run, "task") == ["slurm/7/1/task-0.log", "slurm/7/1/task-1.log"]
    assert names(run, "task", attempt=1) == ["slurm/7/0/task-0.log"]
    assert names(run, "batch", attempt=1) == ["slurm/batch-7.log"]


def test_batch_logs_of_a_sweep_lie_together(tmp_path: Path) -> None:
    write_history(tmp_path, logs=["slurm/batch-7_1.log"])
    run = write_history(tmp_path / "001", [began(1, job="9")], record=JobRecord("7_1"))
    assert names(run, "batch", attempt=1) == ["../slurm/batch-7_1.log"]


def test_before_the_first_attempt_the_job_speaks(tmp_path: Path) -> None:
    run = write_history(tmp_path, logs=["slurm/9/0/task-1.log", "slurm/9/0/task-0.log", "slurm/batch-9.log"])
    assert names(run, attempt=0) == ["slurm/9/0/task-0.log"]


def test_a_run_without_slurm_has_no_job_logs(tmp_path: Path) -> None:
    run = write_history(tmp_path, [began(1, job=None)], logs=["attempts/1/agent-0.log", "slurm/batch-9.log"])
    assert names(run, attempt=1) == ["attempts/1/agent-0.log"]


@pytest.mark.parametrize(
    ("role", "rank", "message"),
    [
        ("trainer", 1, "--rank: found 1; wanted a rank that has a log of role trainer: choose from 0, 2, 10"),
        ("engine", 7, "--rank: found 7; wanted a rank that has a log of role engine: choose from 0, 1"),
    ],
)
def test_no_such_rank(run: RunDirectory, role: str, rank: int, message: str) -> None:
    with pytest.raises(LogsError, match=message):
        names(run, role, rank)


def test_no_such_role_or_no_logs(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(LogsError, match="found engine; wanted one that has logs in this attempt: trainer, task, batch"):
        names(run, "engine", attempt=1)
    with pytest.raises(LogsError, match="no logs yet"):
        names(write_history(tmp_path / "new"), attempt=0)


def test_tail_shows_the_end_and_then_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path, 2)
    assert list(tail.new_lines()) == []
    path.write_text("a\nb\nc\nhal")
    assert list(tail.new_lines()) == ["b", "c"]
    with path.open("a") as file:
        file.write("f\nx")
    assert list(tail.new_lines()) == ["half"]
    assert list(tail.new_lines(last=True)) == ["x"]
    assert list(Tail(path, None).new_lines(last=True)) == ["a", "b", "c", "half", "x"]
    assert list(Tail(path, 0).new_lines()) == []
