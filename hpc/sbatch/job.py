"""A Slurm job as a value: what is asked for, what every task runs, and where it leaves its traces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.mistake import Wrong
from hpc.site.schema import Site
from hpc.slurm.component import Component
from hpc.slurm.reserved import reserved_variable, secret_variable

RUN_DIR = "{RUN_DIR}"
"""In a command: the run directory of this job, or of this element of a job array."""
DEFAULT_TIME_MINUTES = 60
"""Of a job whose run file and site name no time limit."""
SIGNALS = ("USR1", "USR2", "TERM", "INT", "HUP", "CONT")


@dataclass(frozen=True)
class JobSpec:
    """One job. All its components start together; every task of every component runs `command`.

    Attributes:
        command: argv of every task; an element equal to `RUN_DIR` becomes the run directory.
        run_dir: where the job writes: `slurm/batch-JOB.log`, and per start of the job
            `slurm/JOB/RESTARTS/{task-PROCID.log, verdict}`. JOB is the leader's id.
        code_dir: comes first on PYTHONPATH, and is mounted in containers.
        signal, signal_lead_s: what tasks get, and how long ahead of the time limit; Slurm may be 60 s early.
        heterogeneous: false: one allocation with the sum of the nodes and the same tasks.
        exclude: nodes left out beside the site's.
        environment: of all tasks, over the site's.
        array_run_dirs: run directories of a job array, one per element, in place of `run_dir`'s own.
        array: the option's text, e.g. `0-7%2`; left out with `array_run_dirs`: all of them.
        task_stdout, task_stderr: patterns of the tasks' logs (%j leader's job id, %r restart count, %t SLURM_PROCID);
            left out: the log named above, and stderr with stdout.
        verdict: whether a task leaves a verdict file for the script to act on.

    Raises:
        Wrong: (a ValueError) parts that do not make a job.
    """

    name: str
    components: tuple[Component, ...]
    time_minutes: int
    command: tuple[str, ...]
    site: Site
    run_dir: Path
    code_dir: Path | None = None
    signal: str = "USR2"
    signal_lead_s: int = 300
    requeue: bool = True
    heterogeneous: bool = True
    exclude: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    dependency: str | None = None
    array: str | None = None
    array_run_dirs: tuple[Path, ...] = ()
    comment: str | None = None
    batch_log: Path | None = None
    task_stdout: str | None = None
    task_stderr: str | None = None
    verdict: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise Wrong(f"the job name {self.name!r}", "letters, digits, _ . + and -", "rename the run")
        if not self.components:
            raise Wrong("a job without components", "at least one", "name what the job is made of")
        if not self.command:
            raise Wrong("an empty command", "what every task runs", "give its argv")
        if self.signal not in SIGNALS:
            raise Wrong(f"the signal {self.signal!r}", f"one of {', '.join(SIGNALS)}", "leave it out for USR2")
        if not 0 < self.signal_lead_s < self.time_minutes * 60:
            raise Wrong(
                f"a signal {self.signal_lead_s} s ahead of a limit of {self.time_minutes * 60} s",
                "a lead within the time limit",
                "raise the time limit or lower the lead",
            )
        if self.is_array and self.num_het_components > 1:
            raise Wrong("a heterogeneous job array", "what Slurm has", "set heterogeneous: false, or submit job by job")
        if any(not path.is_absolute() for path in (self.run_dir, *self.array_run_dirs)):
            raise Wrong(f"the run directory {self.run_dir}", "an absolute path", "resolve it before submission")
        for variable in self.environment:
            own = variable.startswith("EBBTIDE_")
            if reason := secret_variable(variable) if own else reserved_variable(variable):
                raise Wrong(f"the variable {variable}", "a variable that is yours to set", reason)

    @property
    def is_array(self) -> bool:
        """Whether this is a job array."""
        return bool(self.array or self.array_run_dirs)

    @property
    def has_run_dir(self) -> bool:
        """Whether something goes into the run directory; not for a job that logs elsewhere and leaves no verdict."""
        return self.verdict or self.task_stdout is None or RUN_DIR in self.command

    @property
    def num_het_components(self) -> int:
        """Components as Slurm sees them: 1 for an ordinary job."""
        return len(self.components) if self.heterogeneous and self.site.heterogeneous else 1

    @property
    def num_tasks(self) -> int:
        """Tasks of the job's srun."""
        return sum(component.num_tasks for component in self.components)

    @property
    def excluded_nodes(self) -> tuple[str, ...]:
        """Nodes that the job does not run on, each once."""
        return tuple(dict.fromkeys((*self.site.nodes_exclude, *self.exclude)))
