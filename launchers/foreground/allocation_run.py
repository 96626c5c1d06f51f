"""A run inside an allocation (`salloc`, or a batch script of the user's own): one srun over all of its nodes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from core.processes.children import Child
from core.processes.die_with_parent import adopt_orphans
from core.run_dir.attempt_folder import StartFolder
from core.run_dir.moment import Moment
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from hpc.sbatch.text import part
from hpc.site.files import Site
from hpc.slurm.allocation import Allocation
from hpc.slurm.commands import SlurmError, run_command
from hpc.slurm.options import SRUN_OPTIONS, options_as_words
from launchers.attempts.exit_codes import INTERRUPTED
from launchers.attempts.failure import Failure, describe_exit, from_child, read_record
from launchers.attempts.kept_site import kept_site
from launchers.foreground.follow import follow
from launchers.show.display import Display
from launchers.show.saved import saved_text
from launchers.submit.job_plan import CODE_DIR, task_command


def run_in_allocation(directory: RunDirectory, display: Display) -> int:
    """Run the next attempt on all nodes of the allocation around this process, in the foreground.

    Returns:
        the exit code: 0 complete or paused, 1 failed (the failure is shown), 130 interrupted.
    """
    allocation = Allocation.from_environ(os.environ)
    assert allocation is not None
    adopt_orphans()
    folder = directory.job_start(allocation.job_id, time.strftime("%Y%m%d-%H%M%S"))
    folder.mkdir(parents=True)
    reader = ProgressReader(directory.progress, from_end=True)
    attempt = directory.attempt(directory.next_attempt())
    log, command = StartFolder(folder).srun_log, srun_command(directory.path, allocation, kept_site(directory))
    srun = Child("srun", command, _environment(folder, allocation), log)
    code = follow(srun, reader, display, attempt)
    if code == INTERRUPTED:
        display.interrupted(directory.path, saved_text(directory))
    elif code != 0:
        display.failed(_failure(attempt, srun, code), directory.path, attempt if attempt.exists() else folder)
    return code if code in (0, INTERRUPTED) else 1


def _failure(attempt: Path, srun: Child, code: int) -> Failure:
    """The record of the attempt that was to begin; if there is none, what srun said."""
    if (record := read_record(attempt)) is not None:
        return record
    return from_child("agent", "srun", Moment(), srun, code, f"srun {describe_exit(code)}")


def srun_command(run_dir: Path, allocation: Allocation, site: Site) -> list[str]:
    """One task per node, over all components."""
    groups = [f"--het-group=0-{allocation.het_size - 1}"] if allocation.het_size > 1 else []
    size = [] if groups else [f"--nodes={len(allocation.nodes)}", f"--ntasks={len(allocation.nodes)}"]
    options = ["--ntasks-per-node=1", *SRUN_OPTIONS, *options_as_words(site.srun)]
    return ["srun", *groups, *size, *options, *task_command(sys.executable, str(run_dir))]


def _environment(folder: Path, allocation: Allocation) -> dict[str, str]:
    env = {**os.environ, "EBBTIDE_SLURM_DIR": str(folder)}
    env["PYTHONPATH"] = ":".join([str(CODE_DIR), *filter(None, [env.get("PYTHONPATH")])])
    end = _job_end(allocation)
    return env if end is None else {**env, "EBBTIDE_JOB_END": f"{end:.0f}"}


def _job_end(allocation: Allocation) -> float | None:
    """End of the allocation, asked once; None if it has no limit or nobody tells."""
    if allocation.job_end is not None:
        return allocation.job_end
    try:
        script = "\n".join((*part("job_end"), 'printf %s "$job_end"'))
        return float(run_command(["bash", "-c", script], timeout_s=90))
    except (SlurmError, ValueError):
        return None
