"""`ebbtide attach`: a shell on a node of a run's job."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from core.config import load_run_file
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import Poller
from launchers.attempts.kept_site import kept_site
from launchers.commands.directories import existing_run_dir
from launchers.commands.jobs import jobs_of, status_or_fail
from launchers.commands.terminal import RunDir, fail
from launchers.submit.job_plan import make_plan

EXAMPLE = "ebbtide attach runs/NAME --node n017 -- nvidia-smi"


def command(
    run_dir: RunDir,
    argv: Annotated[list[str] | None, typer.Argument(help="What to run, after `--`; a shell if left out.")] = None,
    node: Annotated[str | None, typer.Option(help="Which node; the first one if left out.")] = None,
) -> None:
    """Open a shell on a node of the run's job, inside the job, beside its processes."""
    directory = existing_run_dir(run_dir)
    jobs_of(directory)
    status = status_or_fail(directory, Poller())
    if status.job_id is None or not status.state.at_work:
        fail(f"{run_dir}: found a run that is {status.state}; wanted a job that runs: see `ebbtide status {run_dir}`")
    if shutil.which("srun") is None:
        fail("srun: found no such command; wanted Slurm's: use a login node, or load Slurm's module")
    chosen = _choose(node, status.nodes)
    group = component_of(directory, status.nodes.index(chosen))
    last = status.history.last
    job_id = last.job if "_" in status.job_id and last and last.job else status.job_id  # srun wants an element's own id
    words = attach_command(job_id, chosen, group, argv or ["bash", "-l"], sys.stdin.isatty())
    os.execvp(words[0], words)


def component_of(directory: RunDirectory, node: int) -> int | None:
    """The component of the run's node number `node` (None: an ordinary job), from run file and site."""
    config = load_run_file(directory.run_file)
    plan = make_plan(config, kept_site(directory))
    return plan.nodes[node].component if plan.heterogeneous and node < len(plan.nodes) else None


def attach_command(job_id: str, node: str, group: int | None, argv: Sequence[str], terminal: bool) -> list[str]:
    """One more task in the job that takes no resources from the others."""
    part = [] if group is None else [f"--het-group={group}"]
    where = [f"--jobid={job_id}", *part, f"--nodelist={node}", "--nodes=1", "--ntasks=1"]
    return ["srun", "--overlap", *where, *(["--pty"] if terminal else []), *argv]


def _choose(node: str | None, nodes: Sequence[str]) -> str:
    if not nodes:
        fail("found no nodes of the job yet; wanted one: try again when it runs")
    if node is not None and node not in nodes:
        fail(f"--node: found {node}; wanted a node of the job: {', '.join(nodes)}")
    return node or nodes[0]
