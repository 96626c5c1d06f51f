"""An executor of submitit for Slurm jobs of several components: one sbatch, one srun, every task calls the function."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Sequence
from copy import copy
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.core import Job
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from hpc.executor.submitit_job import HetSlurmJob
from hpc.sbatch.job import DEFAULT_TIME_MINUTES, JobSpec
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Site
from hpc.slurm.commands import remedy_for, sbatch_command
from hpc.slurm.component import Component

DEFAULT_SIGNAL_LEAD_S = 90
CODE_DIR = Path(__file__).parents[2]
FIXED = ("command", "site", "run_dir", "code_dir", "array", "array_run_dirs", "batch_log", "task_stdout", "task_stderr")


class SubmitError(FailedSubmissionError):
    """sbatch refused the job; the message holds Slurm's, and what to do."""


class JobExecutor(SlurmExecutor):
    """Submits functions as jobs that are like `job` in all but the command: every task calls the function.

    Logs and verdict file are where the job says.

    Args:
        job: its `run_dir` takes the logs if it names no others.
        folder: for scripts and pickles; all nodes must see it. Left out: `RUN_DIR/slurm/submitit`.
        max_num_timeout: how often a time-out may be survived.
    """

    job_class = HetSlurmJob

    def __init__(
        self,
        job: JobSpec,
        folder: str | Path | None = None,
        *,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
    ) -> None:
        folder = folder or job.run_dir / "slurm" / "submitit"
        super().__init__(folder, max_num_timeout, max_pickle_size_gb, python=job.site.interpreter)
        self.job = replace(job, command=_call(self.python, self.folder))
        self._note_time()

    @classmethod
    def affinity(cls) -> int:
        """Usable everywhere: submitit would refuse a machine without srun, where a script can still be shown."""
        return 2

    def script(self) -> str:
        """The text that would be given to sbatch."""
        return sbatch_text(self.job)

    def _note_time(self) -> None:
        self.parameters["time"] = self.job.time_minutes  # submitit's rules for time-outs use it

    @classmethod
    def _equivalence_dict(cls) -> Any:
        return {"name": "name", "timeout_min": "time_minutes"}

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return {field.name for field in fields(JobSpec)} - set(FIXED)

    def _internal_update_parameters(self, **changes: Any) -> None:
        """Change fields of the job, by JobSpec's names or submitit's `name` and `timeout_min`."""
        named = {self._equivalence_dict().get(key, key): value for key, value in changes.items()}
        refuse_unknown(named)
        self.job = replace(self.job, **named)
        self._note_time()

    def _num_tasks(self) -> int:
        return self.job.num_tasks

    @property
    def _submitit_command_str(self) -> str:
        return shlex.join(self.job.command)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command, uid
        return self.script()

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return sbatch_command(str(submission_file_path))

    def _submit_command(self, command: str) -> Job[Any]:
        if self.job.batch_log is None:
            (self.job.run_dir / "slurm").mkdir(parents=True, exist_ok=True)  # Slurm does not make it
        try:
            job = super()._submit_command(command)
        except FailedJobError as error:
            said = str(error).strip()
            raise SubmitError(f"sbatch: found {said}; wanted a job id: {remedy_for(said)}") from None
        self._describe(job)
        return job

    def _describe(self, job: Job[Any]) -> None:
        roles = tuple(part.name for part in self.job.components for _ in range(part.num_tasks))
        if isinstance(job, HetSlurmJob):
            job.describe(roles, self.job.run_dir if self.job.task_stdout is None else None)

    def _internal_process_submissions(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[Job[Any]]:
        """One job, an array, or one job after the other."""
        alone = [[delayed] for delayed in delayed_submissions]
        if len(alone) == 1 or self.job.num_het_components > 1:
            return [super(SlurmExecutor, self)._internal_process_submissions(one)[0] for one in alone]
        return self._submit_array(delayed_submissions)

    def _submit_array(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[Job[Any]]:
        """An ordinary job array: element k calls submission k, with all tasks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pickles = [self.folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for pickle, delayed in zip(pickles, delayed_submissions, strict=True):
            delayed.set_timeout(self.job.time_minutes, self.max_num_timeout)
            delayed.dump(pickle)
        array = copy(self)
        array.job = replace(
            self.job,
            array=f"0-{len(pickles) - 1}",
            task_stdout=self.job.task_stdout and self.job.task_stdout.replace("%j", "%A_%a"),
            task_stderr=self.job.task_stderr and self.job.task_stderr.replace("%j", "%A_%a"),
        )
        array_id = array._submit_command(array._submitit_command_str).job_id
        jobs: list[Job[Any]] = []
        for element, pickle in enumerate(pickles):
            job: Job[Any] = self.job_class(self.folder, f"{array_id}_{element}", list(range(self.job.num_tasks)))
            self._describe(job)
            job.paths.move_temporary_file(pickle, "submitted_pickle")
            jobs.append(job)
        return jobs


class HetSlurmExecutor(JobExecutor):
    """Submits functions as Slurm jobs of one or several components.

        executor = HetSlurmExecutor("logs", [Component("trainers", nodes=2), Component("rewards")], time_minutes=30)
        job = executor.submit(function, argument)
        job.results()  # three results: of the trainers' nodes, then of the rewards' node

    Every task of every component calls the function; `hpc.Allocation` tells it which one it is. One component makes an
    ordinary job; `heterogeneous=False` one allocation with the sum of the nodes and the same tasks. A function with a
    `checkpoint` method is called again after a time-out or preemption, by submitit's rules. `map_array` and `batch()`
    make job arrays where Slurm has them, and one job after the other for heterogeneous jobs.

    Args:
        folder: for scripts, pickles and logs (`JOB_TASK_log.out`, `.err`); all nodes must see it.
        components: component 0 leads.
        site: the cluster; left out: no options but those of the components.
        max_num_timeout: how often a time-out may be survived.
        job: further fields of JobSpec: time_minutes, name, heterogeneous, requeue, signal_lead_s, exclude, environment,
            dependency, comment.
    """

    def __init__(
        self,
        folder: str | Path,
        components: Sequence[Component],
        site: Site | None = None,
        *,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        **job: Any,
    ) -> None:
        if "%" in str(folder):
            raise ValueError(f"found {folder}, wanted a folder without patterns: files in it are named after their job")
        refuse_unknown(job)
        place = Path(folder).expanduser().absolute()
        super().__init__(
            _job_with_logs_in(place, components, site or Site(), **job),
            place,
            max_num_timeout=max_num_timeout,
            max_pickle_size_gb=max_pickle_size_gb,
        )


def _job_with_logs_in(
    folder: Path, components: Sequence[Component], site: Site, time_minutes: int | None = None, **job: Any
) -> JobSpec:
    """The job of a `HetSlurmExecutor`."""
    minutes = time_minutes or site.time_minutes or DEFAULT_TIME_MINUTES
    defaults = {
        "name": "ebbtide",
        "verdict": False,
        "environment": {},
        "signal_lead_s": min(DEFAULT_SIGNAL_LEAD_S, 30 * minutes),
    }
    return JobSpec(
        **{**defaults, **job},
        components=tuple(components),
        time_minutes=minutes,
        command=_call(site.interpreter, folder),
        site=site,
        run_dir=folder,
        code_dir=CODE_DIR,
        batch_log=folder / "%j_batch.log",
        task_stdout=f"{folder}/%j_%t_log.out",
        task_stderr=f"{folder}/%j_%t_log.err",
    )


def _call(python: str, folder: Path) -> tuple[str, ...]:
    """What every task runs: the function whose pickle is in the folder."""
    return (python, "-u", "-m", "hpc.executor.submitit_main", str(folder))


def refuse_unknown(job: dict[str, Any]) -> None:
    """Refuse fields of a job that a caller may not set.

    Raises:
        ValueError: naming the nearest and all that there are.
    """
    allowed = {field.name for field in fields(JobSpec)} - set(FIXED) | {"components"}
    for key in job:
        if key not in allowed:
            near = get_close_matches(key, allowed, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ValueError(f"found the parameter {key!r}, wanted one of {', '.join(sorted(allowed))}{hint}")
