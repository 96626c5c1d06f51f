"""The future of a submitted job: states folded over components, results of all tasks, and who failed first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

from submitit import SlurmJob
from submitit.core.utils import FailedJobError, JobPaths, UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher

from hpc.slurm.commands import SlurmError
from hpc.slurm.job_state import UNKNOWN, JobState
from hpc.slurm.queue import Poller, cancel

R = TypeVar("R", covariant=True)
RESULT_GRACE_S = 15.0  # a result may become visible on a network file system some seconds after the job's end


class JobWatcher(SlurmInfoWatcher):
    """submitit's view of Slurm, asked through a Poller: components folded, sacct not needed, no call more often than
    every 10 s unless forced."""

    def __init__(self, poller: Poller | None = None, grace_s: float = RESULT_GRACE_S) -> None:
        super().__init__()
        self.poller = poller or Poller()
        self.grace_s = grace_s
        self._ended_at: dict[str, float] = {}

    def job_state(self, job_id: str, mode: str = "standard") -> JobState:
        """The state; mode "force" asks Slurm now, "cache" never."""
        self._registered.add(job_id)
        if mode != "cache":
            self.poller.states(self._registered, now=mode == "force")
        state = self.poller.known(job_id)
        if state.has_ended:
            self._ended_at.setdefault(job_id, time.monotonic())
        else:
            self._ended_at.pop(job_id, None)
        return state

    def grace_left_s(self, job_id: str) -> float:
        """How long a missing result of this job is still to be waited for: counted once for all of its tasks."""
        return max(0.0, self._ended_at.get(job_id, time.monotonic()) + self.grace_s - time.monotonic())

    def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
        """submitit's form of the state."""
        state = self.job_state(job_id, mode)
        return (
            {} if state.state == UNKNOWN else {"JobID": job_id, "State": state.state, "NodeList": ",".join(state.nodes)}
        )

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Whether Slurm says that the job has ended."""
        return self.job_state(job_id, mode).has_ended

    def register_job(self, job_id: str) -> None:
        """Ask for this job too, from the next call on."""
        self._registered.add(job_id)

    def update(self) -> None:
        """Ask now."""
        self.poller.states(self._registered, now=True)

    @property
    def num_calls(self) -> int:
        """Calls of squeue."""
        return self.poller.num_calls

    def clear(self) -> None:
        """Forget everything, ended jobs included."""
        self.poller.forget()
        self._ended_at.clear()


class RunPaths(JobPaths):
    """Paths of a job that writes its tasks' logs into a run directory, one folder for each start of the job."""

    def __init__(self, folder: Path, job_id: str, task_id: int | None, run_dir: Path) -> None:
        super().__init__(folder, job_id=job_id, task_id=task_id)
        self.run_dir = run_dir

    @property
    def stdout(self) -> Path:
        """The task's log in the newest start of the job."""
        starts = [path for path in (self.run_dir / "slurm" / str(self.job_id)).glob("*") if path.name.isdigit()]
        newest = max(starts, key=lambda path: int(path.name), default=self.run_dir / "slurm" / str(self.job_id) / "0")
        return newest / f"task-{self.task_id}.log"

    @property
    def stderr(self) -> Path:
        """The same file: the order of lines tells more than their stream."""
        return self.stdout


class HetSlurmJob(SlurmJob[R]):
    """A submitted job. With several tasks, `results()` has one result per task: component by component, node by node.

    Attributes:
        roles: the component's name of every task.
        run_dir: where the tasks' logs are; None: beside the results.
    """

    watcher = JobWatcher()
    roles: tuple[str, ...] = ()
    run_dir: Path | None = None

    def describe(self, roles: tuple[str, ...], run_dir: Path | None) -> None:
        """Tell the job and its tasks what the executor knows of them."""
        for job in (self, *self._sub_jobs):
            assert isinstance(job, HetSlurmJob)
            job.roles, job.run_dir = roles, run_dir
            if run_dir is not None:
                job._paths = RunPaths(job._paths._folder, self.job_id, job.task_id, run_dir)

    @property
    def job_state(self) -> JobState:
        """What Slurm says, at most 10 s ago."""
        return self.watcher.job_state(self.job_id)

    @property
    def _results_timeout_s(self) -> float:  # type: ignore[override]
        return self.watcher.grace_left_s(self.job_id)

    def done(self, force_check: bool = False) -> bool:
        """Whether all results are there or Slurm says that the job has ended.

        A job with a run directory may requeue itself after its tasks have returned: it is done when Slurm says so. So
        is one that was requeued: some results may be of the start before, until their tasks begin to work again.
        """
        requeued = bool(self.watcher.job_state(self.job_id, mode="cache").restarts)
        if self.run_dir is not None or requeued:
            return self.watcher.is_done(self.job_id, mode="force" if force_check else "standard")
        return bool(super().done(force_check))

    def results(self) -> list[R]:
        """Waits for the job's end; the results of all tasks in order.

        Raises:
            FailedJobError: a task raised: the first one that did, with its traceback.
            UncompletedJobError: the job ended without a result of some task, whatever its state.
        """
        error = self.exception()
        if error is not None:
            raise error
        return list(super().results())

    def exception(self) -> UncompletedJobError | None:
        """Waits for the job's end; what `results` would raise."""
        self.wait()
        if not self._sub_jobs:
            return super().exception()
        errors = {task: error for task, job in enumerate(self._sub_jobs) if (error := job.exception()) is not None}
        return self._explain(errors) if errors else None

    def cancel(self, check: bool = True) -> None:
        """End all components. With `check`, raises SlurmError if scancel fails."""
        try:
            cancel([self.job_id])
        except SlurmError:
            if check:
                raise

    def _explain(self, errors: dict[int, Any]) -> UncompletedJobError:
        """The error of the task that raised first; one that only vanished was ended because of it."""
        raised = [task for task, error in errors.items() if isinstance(error, FailedJobError)]
        first = min(raised, key=self._result_time, default=min(errors))
        kind = "raised first" if raised else "left no result"
        others = [f"task {task} ({self._role(task)})" for task in errors if task != first]
        also = f"; nothing or an error from {', '.join(others)} too" if others else ""
        state = self.watcher.job_state(self.job_id, mode="cache")
        text = f"job {self.job_id} ({state}): task {first} ({self._role(first)}) {kind}{also}\n{errors[first]}"
        return FailedJobError(text) if raised else UncompletedJobError(text)

    def _role(self, task: int) -> str:
        return self.roles[task] if task < len(self.roles) else "task"

    def _result_time(self, task: int) -> float:
        path: Path = self._sub_jobs[task].paths.result_pickle
        return path.stat().st_mtime if path.exists() else float("inf")
