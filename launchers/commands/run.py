"""`ebbtide run`: train on this machine, or on all nodes of the allocation that this shell is in."""

from __future__ import annotations

from typing import Annotated

import typer

from core.config import RunConfig, dump_run_file
from hpc.site.files import dump_site
from launchers.commands.cluster import load_checked_site
from launchers.commands.directories import new_run_dir
from launchers.commands.foreground import attempt, current_allocation, load
from launchers.commands.terminal import NewRunDir, Overrides, RunFile, note, refuse, say
from launchers.submit.memory_check import refusals, warnings
from launchers.submit.which_gpus import own_gpu, own_host

EXAMPLE = "ebbtide run examples/smollm2-arithmetic.yaml --set rollout.num_rollout=4"
Local = Annotated[bool, typer.Option("--local", help="Use this machine only, also inside a Slurm allocation.")]


def command(run_file: RunFile, overrides: Overrides = None, run_dir: NewRunDir = None, local: Local = False) -> None:
    """Train now: check the run file, start trainers and engines, turn the loop.

    Inside `salloc` or a batch script the run takes all nodes of the allocation, elsewhere this machine.
    """
    from core.pretrained.locate import needs_conversion

    allocation = current_allocation(local)
    config = load(run_file, overrides or [], allocation)
    _check_memory(config, in_allocation=allocation is not None)
    site = load_checked_site(None) if allocation else None
    directory = new_run_dir(config, run_dir)
    dump_run_file(config, directory.run_file)
    if site is not None:
        dump_site(site, directory.path / "site.yaml")
    say(f"run directory: {directory.path}")
    if needs_conversion(config.model.path):
        say(f"converting the model of {config.model.path} first: once, about half a minute")
    attempt(directory, allocation)


def _check_memory(config: RunConfig, *, in_allocation: bool) -> None:
    """What cannot fit into the GPUs of this machine is refused; the nodes of an allocation may be others."""
    device = None if config.placement.device == "cpu" else own_gpu()
    if device is None and not in_allocation:
        device = own_host()
    if found := refusals(config, device):
        refuse(found)
    for text in warnings(config, device):
        note(text)
