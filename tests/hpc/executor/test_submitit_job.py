"""The future of a job, with a Slurm that says what it is told to."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
from submitit.core.utils import FailedJobError, UncompletedJobError, cloudpickle_dump

from hpc.executor.submitit_job import HetSlurmJob, JobWatcher, RunPaths
from hpc.slurm.job_state import JobState
from hpc.slurm.queue import Poller


class Slurm:
    """States by job id."""

    def __init__(self) -> None:
        self.states: dict[str, JobState] = {}

    def ask(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        return {job_id: self.states[job_id] for job_id in job_ids if job_id in self.states}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    told = Slurm()
    poller = Poller(ask=told.ask)
    poller.interval_s = 0.0
    monkeypatch.setattr(HetSlurmJob, "watcher", JobWatcher(poller, grace_s=0.0))
    return told


def job_of(folder: Path, num_tasks: int = 3) -> HetSlurmJob[int]:
    job: HetSlurmJob[int] = HetSlurmJob(folder, "7", range(num_tasks))
    job.describe(("trainers", "trainers", "rewards"), None)
    return job


def write(folder: Path, task: int, outcome: str, value: object) -> None:
    cloudpickle_dump((outcome, value), folder / f"7_{task}_result.pkl")


def test_results_are_in_the_order_of_the_tasks(tmp_path: Path, slurm: Slurm) -> None:
    for task in (2, 0, 1):
        write(tmp_path, task, "success", task * 10)
    assert job_of(tmp_path).results() == [0, 10, 20]


def test_the_task_that_raised_is_told_not_those_that_ended_because_of_it(tmp_path: Path, slurm: Slurm) -> None:
    slurm.states["7"] = JobState("FAILED", "NonZeroExitCode")
    write(tmp_path, 2, "error", "Traceback: ZeroDivisionError")
    with pytest.raises(FailedJobError) as caught:
        job_of(tmp_path).results()
    first, *rest = str(caught.value).splitlines()
    assert first == (
        "job 7 (FAILED (NonZeroExitCode)): task 2 (rewards) raised first; "
        "nothing or an error from task 0 (trainers), task 1 (trainers) too"
    )
    assert "Traceback: ZeroDivisionError" in rest


def test_of_two_tasks_that_raised_the_first_in_time_is_told(tmp_path: Path, slurm: Slurm) -> None:
    slurm.states["7"] = JobState("FAILED")
    write(tmp_path, 1, "error", "the cause")
    (tmp_path / "7_0_result.pkl").touch()
    write(tmp_path, 0, "error", "ConnectionError")
    later = (tmp_path / "7_1_result.pkl").stat().st_mtime + 1
    import os

    os.utime(tmp_path / "7_0_result.pkl", (later, later))
    assert "task 1 (trainers) raised first" in str(job_of(tmp_path).exception())


def test_completed_without_all_results_is_no_success(tmp_path: Path, slurm: Slurm) -> None:
    slurm.states["7"] = JobState("COMPLETED", exit_code=0)
    write(tmp_path, 0, "success", 0)
    error = job_of(tmp_path).exception()
    assert isinstance(error, UncompletedJobError)
    assert "task 1 (trainers) left no result" in str(error)


def test_live_job_without_results_is_not_done(tmp_path: Path, slurm: Slurm) -> None:
    job = job_of(tmp_path)
    for state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
        slurm.states["7"] = JobState(state)
        assert not job.done()
        assert job.state == state
    slurm.states["7"] = JobState("GONE", "nobody knows it")
    assert job.done()


def test_job_with_a_run_directory_is_done_when_slurm_says_so(tmp_path: Path, slurm: Slurm) -> None:
    job = job_of(tmp_path)
    job.describe(job.roles, tmp_path)
    for task in range(3):
        write(tmp_path, task, "success", task)
    slurm.states["7"] = JobState("RUNNING")  # its script may be about to requeue it
    assert not job.done()
    slurm.states["7"] = JobState("COMPLETED")
    assert job.results() == [0, 1, 2]


def test_requeued_job_is_done_when_slurm_says_so(tmp_path: Path, slurm: Slurm) -> None:
    """Results of its first start may be there, of tasks that have not begun again."""
    job = job_of(tmp_path)
    for task in range(3):
        write(tmp_path, task, "success", task)
    slurm.states["7"] = JobState("RUNNING", restarts=1)
    assert job.job_state.restarts == 1
    assert not job.done()
    assert not job.task(2).done()
    slurm.states["7"] = JobState("COMPLETED", restarts=1)
    assert job.results() == [0, 1, 2]


def test_logs_are_those_of_the_newest_start(tmp_path: Path) -> None:
    for restart in (0, 2, 10):
        (tmp_path / "slurm" / "7" / str(restart)).mkdir(parents=True)
    assert RunPaths(tmp_path, "7", 1, tmp_path).stdout == tmp_path / "slurm" / "7" / "10" / "task-1.log"


def test_job_can_be_pickled_and_found_again(tmp_path: Path, slurm: Slurm) -> None:
    write(tmp_path, 0, "success", 5)
    job: HetSlurmJob[int] = pickle.loads(pickle.dumps(job_of(tmp_path, 1)))
    assert job.result() == 5
    assert job.roles[2] == "rewards"


def test_missing_results_are_waited_for_once_for_all_tasks(tmp_path: Path, slurm: Slurm) -> None:
    now = 100.0
    watcher = JobWatcher(Poller(ask=slurm.ask), grace_s=15.0)
    slurm.states["7"] = JobState("CANCELLED")
    watcher.job_state("7", mode="force")
    begun = watcher._ended_at["7"]
    assert 14.0 < watcher.grace_left_s("7") <= 15.0
    watcher._ended_at["7"] = begun - now
    assert watcher.grace_left_s("7") == 0.0
