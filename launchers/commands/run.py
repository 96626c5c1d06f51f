"""`ebbtide run`: train on this machine, or on all nodes of the allocation that this shell is in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.checks import ModelFiles
from core.config import dump_run_file
from core.config.schema import RunConfig
from core.planner import Device
from core.run_dir.run_directory import RunDirectory
from hpc.site.files import Site, dump_site
from hpc.slurm.allocation import Allocation
from launchers.commands.cluster import load_checked_site
from launchers.commands.directories import new_run_dir
from launchers.commands.foreground import attempt, current_allocation, load
from launchers.commands.terminal import NewRunDir, Overrides, RunFile, fail, note, refuse, say
from launchers.commands.trial import call_reward
from launchers.submit.memory_check import refusals, warnings
from launchers.submit.submission import Refused, Submission, make_submission
from launchers.submit.which_gpus import own_gpu, own_host

EXAMPLE = "ebbtide run examples/smollm2-arithmetic.yaml --set rollout.num_rollout=4"
Local = Annotated[bool, typer.Option("--local", help="Use this machine only, also inside a Slurm allocation.")]


def command(run_file: RunFile, overrides: Overrides = None, run_dir: NewRunDir = None, local: Local = False) -> None:
    """Train now: check the run file, start trainers and engines, turn the loop.

    Inside `salloc` or a batch script the run takes all nodes of the allocation, elsewhere this machine.
    """
    from core.pretrained.locate import needs_conversion

    allocation = current_allocation(local)
    files = ModelFiles()
    config = load(run_file, overrides or [], allocation, files)
    site = site_that_fits(config, allocation, files)
    call_reward(config)
    directory = begin(config, run_dir, allocation, site)
    if needs_conversion(config.model.path):
        say(f"converting the model of {config.model.path} first: once, about half a minute")
    attempt(directory, allocation)


def site_that_fits(config: RunConfig, allocation: Allocation | None, files: ModelFiles) -> Site:
    """The site of a run that starts here; ends the command where the machine cannot hold the run."""
    site, device = load_checked_site(None) if allocation else Site(), _device(config, in_allocation=bool(allocation))
    try:
        submission = make_submission(config, site, shape=files.shape(config.model), device=device)
    except Refused as error:
        fail(str(error))
    _check_memory(submission)
    return site


def begin(config: RunConfig, wanted: Path | None, allocation: Allocation | None, site: Site) -> RunDirectory:
    """A new run directory with its run file, and in an allocation its site file; told to the user."""
    directory = new_run_dir(config, wanted)
    dump_run_file(config, directory.run_file)
    if allocation is not None:
        dump_site(site, directory.site_file)
    say(f"run directory: {directory.path}")
    return directory


def _device(config: RunConfig, *, in_allocation: bool) -> Device | None:
    """What this machine has for the run; None: nothing that tells of the nodes of an allocation."""
    device = None if config.placement.device == "cpu" else own_gpu()
    return own_host() if device is None and not in_allocation else device


def _check_memory(submission: Submission) -> None:
    if found := refusals(submission):
        refuse(found)
    for text in warnings(submission):
        note(text)
