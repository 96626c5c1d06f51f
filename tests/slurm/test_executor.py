"""Functions submitted to the real cluster, as jobs of one and of several components."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import FailedJobError, UncompletedJobError

from hpc import Component, HetSlurmExecutor, JobExecutor, JobSpec, Poller, Site, SubmitError
from hpc.executor.submitit_job import HetSlurmJob, JobWatcher
from tests.slurm_cluster import Cluster, wait_until
from tests.slurm_cluster.cluster import ROOT
from tests.support.submitted_functions import (
    Counting,
    add,
    fail_on,
    first_start_returns,
    leave_verdict,
    linger,
    vanish_on,
    who,
)

pytestmark = pytest.mark.slurm

TWO = [Component("trainers", nodes=2, gpus_per_node=1), Component("rewards", tasks_per_node=2)]
EXPECTED_PLACES = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture(autouse=True)
def quick_watcher(monkeypatch: pytest.MonkeyPatch) -> JobWatcher:
    """A watcher of this test's own (job ids of two clusters are alike): asks often, waits shortly for results."""
    poller = Poller()
    poller.interval_s = 0.5
    watcher = JobWatcher(poller, grace_s=2.0)
    monkeypatch.setattr(HetSlurmJob, "watcher", watcher)
    return watcher


def executor(folder: Path, components: list[Component] = TWO, **job: object) -> HetSlurmExecutor:
    return HetSlurmExecutor(folder, components, **{"time_minutes": 3, **job})  # type: ignore[arg-type]


def test_every_task_of_both_components_returns_its_result(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(who, "hello")
    results = job.results()
    assert [result["procid"] for result in results] == [0, 1, 2, 3]
    assert [result["place"] for result in results] == EXPECTED_PLACES
    assert [result["rank"] for result in results] == [0, 1, 2, 3]
    assert {(result["job_id"], result["num_tasks"]) for result in results} == {(job.job_id, 4)}
    assert [result["host"] for result in results] == [*results[0]["nodes"], results[0]["nodes"][-1]]
    assert [result["cuda"] for result in results] == ["0", "0", None, None]
    wait_until(lambda: job.job_state.has_ended, 30.0, "the job to end")
    assert (job.state, job.job_state.nodes) == ("COMPLETED", results[0]["nodes"])


def test_logs_of_every_task_are_under_the_leaders_id(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(who, "hello")
    job.results()
    for task in range(4):
        assert f"hello from task {task}" in (tmp_path / f"{job.job_id}_{task}_log.out").read_text()
        assert f"warning from task {task}" in (tmp_path / f"{job.job_id}_{task}_log.err").read_text()
        assert f"hello from task {task}" in str(job.task(task).stdout())


def test_the_same_tasks_in_one_allocation(cluster: Cluster, tmp_path: Path) -> None:
    """For clusters that forbid heterogeneous jobs; Slurm then knows one component, and one task on each node."""
    components = [Component("trainers", nodes=2), Component("rewards")]
    job = executor(tmp_path, components, heterogeneous=False).submit(who, "hello")
    results = job.results()
    assert [(result["procid"], result["place"]) for result in results] == [(0, (0, 0)), (1, (0, 1)), (2, (0, 2))]
    assert [result["host"] for result in results] == list(results[0]["nodes"])
    assert job.roles == ("trainers", "trainers", "rewards")


def test_one_component_is_an_ordinary_job(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path, [Component("workers")]).submit(add, 2, 3)
    assert job.result() == 5
    assert "hetjob" not in Path(job.paths.submission_file).read_text()


def test_task_that_raises_is_named_with_its_traceback(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(fail_on, 2)
    with pytest.raises(FailedJobError, match=rf"job {job.job_id} .*: task 2 \(rewards\) raised first") as caught:
        job.results()
    assert "ArithmeticError: task 2 cannot go on" in str(caught.value)
    wait_until(lambda: job.job_state.has_ended, 30.0, "the job to end")
    assert job.state == "FAILED"


def test_task_that_vanishes_ends_the_job_and_is_no_success(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(vanish_on, 3)
    error = job.exception()
    assert isinstance(error, UncompletedJobError)
    assert not isinstance(error, FailedJobError)
    assert "left no result" in str(error)
    assert job.state == "FAILED"


def test_cancel_ends_all_components(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(linger, tmp_path)
    wait_until(lambda: all((tmp_path / str(task)).exists() for task in range(4)), 60.0, "all tasks to run")
    job.cancel()
    assert isinstance(job.exception(), UncompletedJobError)
    assert job.state == "CANCELLED"
    wait_until(lambda: not any(cluster.processes(node) for node in cluster.nodes), 15.0, "all processes to end")
    job.cancel()  # of a job that has ended: nothing happens


def test_checkpoint_and_requeue(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path, max_num_timeout=2).submit(Counting(5, tmp_path))
    wait_until(lambda: _steps(tmp_path) == ["3"] * 4, 60.0, "three steps of every task")
    job._interrupt()
    assert job.results() == [(3, 5, 1)] * 4


def _steps(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("step-*"))]


def test_results_of_an_earlier_start_do_not_count(cluster: Cluster, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = executor(tmp_path).submit(first_start_returns, mark)
    wait_until(lambda: mark.exists() and job.task(3).done(), 60.0, "task 3 to return, task 0 to go on")
    cluster.run("scontrol", "requeue", job.job_id)
    wait_until(lambda: (job.job_state.restarts or 0) > 0, 30.0, "the requeue")
    assert job.results() == [1, 1, 1, 1]


def test_without_sacct(cluster_without_sacct: Cluster, tmp_path: Path) -> None:
    components = [Component("trainers"), Component("rewards")]
    assert executor(tmp_path, components).submit(add, 2, 3).results() == [5, 5]
    job = executor(tmp_path, components).submit(linger, tmp_path)
    wait_until(lambda: (tmp_path / "1").exists(), 60.0, "task 1 to run")
    job.cancel()
    assert isinstance(job.exception(), UncompletedJobError)
    assert job.done()
    assert job.state == "CANCELLED"


def test_array_of_an_ordinary_job(cluster: Cluster, tmp_path: Path) -> None:
    jobs = executor(tmp_path, [Component("pair", nodes=2)]).map_array(add, [1, 2, 3], [10, 20, 30])
    assert [job.results() for job in jobs] == [[11, 11], [22, 22], [33, 33]]
    assert len({job.job_id.split("_")[0] for job in jobs}) == 1
    assert all(job.task(1).stdout() is not None for job in jobs)


def test_array_of_heterogeneous_jobs_is_job_by_job(cluster: Cluster, tmp_path: Path) -> None:
    jobs = executor(tmp_path).map_array(add, [1, 2], [10, 20])
    assert [job.results() for job in jobs] == [[11] * 4, [22] * 4]
    assert len({job.job_id for job in jobs}) == 2


@pytest.mark.parametrize("name", ["with space", "quo'te\"s", "$HOME `id` & ; #"])
def test_folders_of_any_name(cluster: Cluster, tmp_path: Path, name: str) -> None:
    job = executor(tmp_path / name, [Component("a"), Component("b")]).submit(who, "hello")
    assert [result["procid"] for result in job.results()] == [0, 1]
    assert "hello from task 1" in str(job.task(1).stdout())


def test_refusal_says_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match=r"(?s)invalid partition specified.*name a partition of this cluster"):
        executor(tmp_path, site=Site(partition="gpuu")).submit(add, 2, 3)
    with pytest.raises(SubmitError, match=r"(?s)Requested node configuration is not available.*no node has that much"):
        executor(tmp_path, [Component("greedy", gpus_per_node=64)]).submit(add, 2, 3)


def test_submitting_from_inside_another_allocation(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM_NTASKS and the like of the allocation that submits do not reach the new job."""
    code = f"""
from hpc import Component, HetSlurmExecutor
from tests.support.submitted_functions import who
job = HetSlurmExecutor({str(tmp_path)!r}, [Component("a", nodes=2)], time_minutes=3).submit(who, "hello")
print([result["num_tasks"] for result in job.results()])
"""
    inside = ["srun", "-N1", "-n1", "--cpus-per-task=2", "--mem=100", "-t", "3", sys.executable, "-c", code]
    done = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[2, 2]"


def test_job_with_a_run_directory_logs_there(cluster: Cluster, tmp_path: Path) -> None:
    """What `ebbtide submit` does: the job's logs are those of a run, by start; the futures work all the same."""
    spec = JobSpec("run", tuple(TWO), 3, ("unused",), Site(), tmp_path, signal_lead_s=60, verdict=False)
    job = JobExecutor(spec).submit(who, "hello")
    assert len(job.results()) == 4
    assert job.state == "COMPLETED"
    for task in range(4):
        log = tmp_path / "slurm" / job.job_id / "0" / f"task-{task}.log"
        assert f"hello from task {task}" in log.read_text()
        assert str(job.task(task).stdout()) == log.read_text()


def test_job_that_requeues_itself_is_done_at_its_last_end(cluster: Cluster, tmp_path: Path) -> None:
    """The first start asks for another one without its last node; the futures tell of the second."""
    components = (Component("trainers", nodes=2), Component("rewards"))
    spec = JobSpec("run", components, 3, ("unused",), Site(), tmp_path, signal_lead_s=60)
    job = JobExecutor(spec).submit(leave_verdict)
    results = job.results()
    assert [restarts for restarts, _ in results] == [1, 1, 1]
    (left_out,) = set((tmp_path / "left-out").read_text().split())
    assert left_out not in {host for _, host in results}
    assert job.state == "COMPLETED"
