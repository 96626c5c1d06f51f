"""The run directory: where a run leaves what it makes. Paths only; who writes a file knows its format.

    run.yaml                 run_file       the resolved run file
    site.yaml                site_file      the site file that the run was started with, if there was one
    attempts/N/              attempt(N)     logs and records of one attempt: `AttemptFolder`
    attempts/latest          latest         link to the newest of them
    steps/                   steps          the trajectory store
    checkpoints/             checkpoints    one folder for each checkpoint that is kept
    checkpoints/step_000008/ checkpoint(…)  the one after a step
    tensorboard/             tensorboard    event files
    progress.jsonl           progress       one JSON line per event: what the terminal shows
    ledger.jsonl             ledger         one JSON line per attempt: how it began and how it ended
    hf/                      hf_model       the final model as a HuggingFace directory
    model/                   model          the model that `ebbtide eval` has taken out of a checkpoint
    evaluation.jsonl         evaluation     one JSON line per `ebbtide eval`: the model and its rates
    hf_steps/                hf_steps       models after steps, where the run file asks for them
    hf_steps/step_000008/    model_after(…) the one after a step
    sync/                    sync           weights on their way to engines through files
    profile/                 profile        the trace of a step that `ebbtide profile` has made
    .lock                    lock           held by the one process that works in the run directory
    slurm/job.sbatch         job_script     the batch script, as submitted
    slurm/job.json           job_record     the jobs that were submitted
    slurm/batch-JOB.log      batch_log(…)   what the batch script said
    slurm/JOB/RESTART/       job_start(…)   where the tasks of one start of a job meet: `StartFolder`

A sweep's folder has `slurm/` with the script and the batch logs, too, and its runs' directories beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN_FILE = "run.yaml"  # by which a run directory is known


def step_folder(num_steps: int) -> str:
    """The name of a folder that holds what a run is after this number of steps."""
    return f"step_{num_steps:06d}"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run."""

    path: Path

    @property
    def run_file(self) -> Path:
        """The resolved run file."""
        return self.path / RUN_FILE

    @property
    def site_file(self) -> Path:
        """The site file that the run was started with; the file is missing if there was none."""
        return self.path / "site.yaml"

    @property
    def steps(self) -> Path:
        """The trajectory store."""
        return self.path / "steps"

    @property
    def checkpoints(self) -> Path:
        """The folder with one folder for each checkpoint that is kept."""
        return self.path / "checkpoints"

    def newest_checkpoint(self) -> int | None:
        """How many steps the newest checkpoint holds; whether it is undamaged is not asked. None: there is none."""
        return max(self.checkpoint_steps(), default=None)

    def checkpoint_steps(self) -> list[int]:
        """How many steps each checkpoint holds, the fewest first; whether they are undamaged is not asked."""
        names = [path.name for path in self.checkpoints.glob("step_??????")]
        return sorted(int(name.removeprefix("step_")) for name in names if name[5:].isdigit())

    def checkpoint(self, num_steps: int) -> Path:
        """The folder of the checkpoint that holds this number of steps."""
        return self.checkpoints / step_folder(num_steps)

    @property
    def tensorboard(self) -> Path:
        """The folder of the event files."""
        return self.path / "tensorboard"

    @property
    def progress(self) -> Path:
        """The file with one JSON line per event: what the terminal shows."""
        return self.path / "progress.jsonl"

    @property
    def ledger(self) -> Path:
        """The file with one JSON line per attempt: how it began and how it ended."""
        return self.path / "ledger.jsonl"

    @property
    def hf_model(self) -> Path:
        """The final model as a HuggingFace directory."""
        return self.path / "hf"

    @property
    def model(self) -> Path:
        """The model of another run's checkpoint that is evaluated here, as a HuggingFace directory."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        """The file with one JSON line per `ebbtide eval`."""
        return self.path / "evaluation.jsonl"

    @property
    def hf_steps(self) -> Path:
        """The folder with one HuggingFace directory for each step whose model the run file asks for."""
        return self.path / "hf_steps"

    def model_after(self, num_steps: int) -> Path:
        """The model after this number of steps, as a HuggingFace directory."""
        return self.hf_steps / step_folder(num_steps)

    @property
    def sync(self) -> Path:
        """The folder of weights on their way to engines through files."""
        return self.path / "sync"

    @property
    def profile(self) -> Path:
        """The folder of the trace of a step."""
        return self.path / "profile"

    @property
    def lock(self) -> Path:
        """The file that is locked by the one process that works in the run directory."""
        return self.path / ".lock"

    def attempt(self, number: int) -> Path:
        """The folder of one attempt; `AttemptFolder` has what is in it."""
        return self._attempts / str(number)

    def attempts(self) -> Iterator[Path]:
        """The folders of all attempts."""
        return (path for path in self._attempts.glob("*") if path.name.isdigit())

    @property
    def latest(self) -> Path:
        """The link to the folder of the newest attempt."""
        return self._attempts / "latest"

    def next_attempt(self) -> int:
        """The number after the highest one there is; attempts count from 1."""
        return max((int(path.name) for path in self.attempts()), default=0) + 1

    @property
    def job_script(self) -> Path:
        """The batch script, as submitted."""
        return self._slurm / "job.sbatch"

    @property
    def job_record(self) -> Path:
        """The record of the jobs that were submitted."""
        return self._slurm / "job.json"

    def batch_log(self, job: str) -> Path:
        """The log of a job's batch script. An element of an array has a job's name with its number: `123_4`."""
        return self._slurm / f"batch-{job}.log"

    def batch_logs(self) -> Iterator[Path]:
        """The logs of all jobs' batch scripts."""
        return self._slurm.glob("batch-*.log")

    def job_start(self, job: str, restart: int | str) -> Path:
        """The folder of one start of a job; `StartFolder` has what is in it.

        Args:
            restart: how often the job was requeued before; for an srun within an allocation, when it began.
        """
        return self._slurm / job / str(restart)

    def job_starts(self) -> Iterator[Path]:
        """The folders of all starts of all jobs that Slurm has started itself."""
        return (path for path in self._slurm.glob("*/*") if path.is_dir() and path.name.isdigit())

    @property
    def _attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def _slurm(self) -> Path:
        return self.path / "slurm"
