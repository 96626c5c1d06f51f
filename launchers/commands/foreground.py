"""An attempt in the foreground, for `run` and `resume`: the run file checked, progress shown, the result at the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from core.checks import ModelFiles, check_run_file
from core.config import RunFileError, load_run_file
from core.config.layout import nodes, num_engines
from core.config.schema import RunConfig
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.allocation import Allocation, AllocationError
from launchers.commands.terminal import console, fail, say
from launchers.show.short_path import short_path
from launchers.submit.allocation_fit import Misfit, fitting

if TYPE_CHECKING:
    from launchers.show.display import Display


def current_allocation(local: bool) -> Allocation | None:
    """The allocation whose nodes a run is to use; None: this machine alone.

    Args:
        local: the user wants this machine. So does a shell inside a step, such as that of `srun --pty bash`.
    """
    try:
        found = None if local else Allocation.from_environ(os.environ)
    except AllocationError as error:
        fail(f"{error}\nto use this machine alone: --local")
    if found is None or found.in_step:
        return None
    if shutil.which("srun") is None:
        fail(
            f"srun: found the allocation {found.job_id}, and no srun on PATH; wanted Slurm's, which starts the run on "
            "its nodes: load Slurm's module, or use this machine alone with --local"
        )
    return found


def load(
    run_file: Path,
    overrides: list[str],
    allocation: Allocation | None,
    files: ModelFiles | None = None,
    folder: Path | None = None,
) -> RunConfig:
    """The checked run file of a run that starts now; in an allocation it takes all nodes, whatever the file says.

    Args:
        files: shared with others who ask for the model's shape.
        folder: that relative paths are relative to; None: the run file's.
    """
    try:
        if allocation is not None:
            overrides = [*overrides, *_on_all_nodes(run_file, overrides, allocation)]
        config = check_run_file(run_file, overrides, files, folder)
    except (RunFileError, Misfit) as error:
        fail(str(error))
    refuse_other_nodes(config, allocation)
    return config


def refuse_other_nodes(config: RunConfig, allocation: Allocation | None) -> None:
    """End the command where a run wants more nodes than this machine, and there is no allocation."""
    if allocation is None and (wanted := len(nodes(config))) > 1:
        key = "slurm.components" if config.slurm.components else "placement.num_nodes"
        fail(
            f"{key}: found a run on {wanted} nodes; wanted 1, this machine: submit it with `ebbtide submit`, or run it "
            f"inside an allocation: salloc --nodes={wanted}"
        )


def attempt(directory: RunDirectory, allocation: Allocation | None) -> None:
    """Run the next attempt to its end and show the result; its exit code becomes the command's."""
    run_to_end(directory, allocation)
    show_result(directory)
    raise typer.Exit(0)


def run_to_end(directory: RunDirectory, allocation: Allocation | None) -> None:
    """Run the next attempt; unless it is complete, its exit code ends the command."""
    from launchers.attempts.attempt import RunBusy
    from launchers.show.display import Display

    config = load_run_file(directory.run_file)
    engines, trains = bool(num_engines(config)), config.placement.trainers != "none"
    started = " and ".join(["trainer ranks"] * trains + ["engines"] * engines)
    try:
        code = _run_attempt(directory, allocation, Display(console, f"starting {started}"))
    except RunBusy as error:
        fail(str(error))
    if code != 0:
        raise typer.Exit(code)


def _run_attempt(directory: RunDirectory, allocation: Allocation | None, display: Display) -> int:
    if allocation is None:
        from launchers.foreground.local_run import run_attempt

        return run_attempt(directory, display)
    from launchers.foreground.allocation_run import run_in_allocation

    return run_in_allocation(directory, display)


def _on_all_nodes(run_file: Path, overrides: list[str], allocation: Allocation) -> list[str]:
    changes = fitting(load_run_file(run_file, overrides), allocation.job_id, len(allocation.nodes))
    if changes:
        say(f"allocation {allocation.job_id} has {len(allocation.nodes)} nodes: {', '.join(changes)}")
    return changes


def show_result(directory: RunDirectory) -> None:
    """The table of all steps, where everything lies, and what to type next."""
    from launchers.show.display import summary

    path = short_path(directory.path)
    console.print(summary(ProgressReader(directory.progress).new_events()))
    places = {
        f"as a page:    ebbtide report {path}": directory.progress,
        f"samples:      ebbtide inspect {path} --best 2": directory.steps,
        f"curves:       tensorboard --logdir {path}": directory.tensorboard,
        f"checkpoints:  {path}/checkpoints/": directory.checkpoints,
        f"the model:    {path}/hf/": directory.hf_model,
        f"of steps:     {path}/hf_steps/": directory.hf_steps,
        f"logs:         {path}/attempts/latest/": directory.path,
    }
    say("\n".join(line for line, place in places.items() if place.exists()))
