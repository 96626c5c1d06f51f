"""`RUN_DIR/slurm/job.json`: which Slurm jobs were submitted for a run, and with what."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field

from common.files import write_atomically
from core.run_dir.run_directory import RunDirectory


@dataclass(frozen=True)
class JobRecord:
    """The jobs of one submission.

    Attributes:
        job_id: the job, or the first one of a chain; `123_4` for an element of a job array.
        chain: all jobs of a dependency chain, in order; empty where the cluster requeues.
        submitted: seconds since the epoch.
        site: the site file that was used; null: none.
        script: the batch script, as submitted.
        earlier: the jobs of former submissions of this run.
    """

    job_id: str
    chain: tuple[str, ...] = ()
    submitted: float = field(default_factory=time.time)
    site: str | None = None
    script: str = ""
    earlier: tuple[str, ...] = ()

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The job, or all jobs of the chain."""
        return self.chain or (self.job_id,)

    def after(self, job_id: str) -> tuple[str, ...]:
        """The jobs of the chain that come after this one of it."""
        return self.chain[self.chain.index(job_id) + 1 :] if job_id in self.chain else ()

    def write(self, directory: RunDirectory) -> None:
        """Write atomically; no secrets are in it."""
        path = directory.job_record
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1))


def read_record(directory: RunDirectory) -> JobRecord | None:
    """The record of a run; None if it was never submitted."""
    path = directory.job_record
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    lists = {name: tuple(fields.get(name, ())) for name in ("chain", "earlier")}
    return JobRecord(**{**fields, **lists})
