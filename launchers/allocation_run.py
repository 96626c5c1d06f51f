"""A run inside an allocation (`salloc`, or a batch script of the user's own): one srun over all of its nodes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from core.config.schema import RunConfig
from core.die_with_parent import adopt_orphans
from core.layout import nodes
from core.progress import ProgressReader
from core.run_directory import RunDirectory
from hpc.allocation import Allocation
from hpc.commands import SlurmError, run_command
from launchers.children import Child
from launchers.display import Display
from launchers.failure import Failure
from launchers.foreground_run import INTERRUPTED, follow
from launchers.plan import CODE_DIR, task_command


class DoesNotFit(ValueError):
    """The run needs other nodes than the allocation has."""


def fitting(config: RunConfig, allocation: Allocation) -> list[str]:
    """The overrides with which the run uses all nodes of the allocation: the trainers take what the others leave.

    Raises:
        DoesNotFit: no node would be left for the trainers.
    """
    others = sum(node.role != "trainers" for node in nodes(config))
    trainers = len(allocation.nodes) - others
    if trainers < 1:
        raise DoesNotFit(
            f"allocation {allocation.job_id} has {len(allocation.nodes)} nodes; wanted {others} for the components "
            "that are not trainers and at least one more: ask for more nodes, or leave out slurm.components"
        )
    return [] if trainers == config.placement.num_nodes else [f"placement.num_nodes={trainers}"]


def run_in_allocation(directory: RunDirectory, allocation: Allocation, display: Display) -> int:
    """Run the next attempt on all nodes of the allocation, in the foreground.

    Returns:
        the exit code: 0 complete or paused, 1 failed (the failure is shown), 130 interrupted.
    """
    adopt_orphans()
    folder = directory.path / "slurm" / allocation.job_id / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    reader = ProgressReader(directory.progress, from_end=True)
    srun = Child(
        "srun", srun_command(directory.path, allocation), _environment(folder, allocation), folder / "srun.log"
    )
    code = follow(srun, reader, display)
    if code == INTERRUPTED:
        display.interrupted(directory.path)
    elif code != 0:
        attempt = directory.path / "attempts" / "latest"
        record = attempt / "failure.json"
        display.failed(Failure.read(record) if record.exists() else None, directory.path, attempt, folder / "srun.log")
    return code if code in (0, INTERRUPTED) else 1


def srun_command(run_dir: Path, allocation: Allocation) -> list[str]:
    """One task per node, over all components."""
    groups = [f"--het-group=0-{allocation.het_size - 1}"] if allocation.het_size > 1 else []
    size = [] if groups else [f"--nodes={len(allocation.nodes)}", f"--ntasks={len(allocation.nodes)}"]
    options = ["--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=60", "--export=ALL", "--cpu-bind=none"]
    return ["srun", *groups, *size, *options, *task_command(sys.executable, str(run_dir))]


def _environment(folder: Path, allocation: Allocation) -> dict[str, str]:
    env = {**os.environ, "EBBTIDE_SLURM_DIR": str(folder)}
    env["PYTHONPATH"] = ":".join([str(CODE_DIR), *filter(None, [env.get("PYTHONPATH")])])
    end = _job_end(allocation)
    return env if end is None else {**env, "EBBTIDE_JOB_END": f"{end:.0f}"}


def _job_end(allocation: Allocation) -> float | None:
    """When the allocation ends, asked once; None if it has no limit or nobody tells."""
    if allocation.job_end is not None:
        return allocation.job_end
    try:
        text = run_command(["squeue", "-h", "-j", allocation.job_id, "-o", "%e"]).split("\n")[0].strip()
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (SlurmError, ValueError):
        return None
