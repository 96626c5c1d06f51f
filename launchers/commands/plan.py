"""`ebbtide plan`: what a run will need of GPUs, hosts and disks, and who runs where; before anything is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.mistake import Wrong
from core.checks.model import known_shape
from core.config import RunConfig, RunFileError, load_run_file
from core.planner import Device, notices, plan_memory, problems, size_problems
from hpc.site.schema import Site
from launchers.commands.cluster import SiteFile, load_checked_site
from launchers.commands.terminal import Overrides, RunFile, fail, note, refuse, say
from launchers.show.memory_table import render_cards, render_memory
from launchers.submit.job_plan import make_plan, render
from launchers.submit.memory_check import too_old
from launchers.submit.submission import Refused, option_mistakes
from launchers.submit.which_gpus import common_gpus, named_gpu, on_cpu, own_gpu, own_host, site_gpu
from modelcfg import ModelShape

EXAMPLE = "ebbtide plan run.yaml --gpu-memory h100 --set train.recompute=full"


def command(
    run_file: RunFile,
    site: SiteFile = None,
    overrides: Overrides = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(help="Plan for GPUs of this size, or kind: 80GiB, h100, a100-40gb. Left out: the site file's."),
    ] = None,
) -> None:
    """Say what each phase needs per GPU and on the host, whether that fits, and which process runs where.

    Needs neither data nor weights, only the model's name or its config.json. Exit code 2: it does not fit.
    """
    config, where = _load(run_file, overrides), load_checked_site(site)
    if mistakes := list(option_mistakes(config, where)):
        fail(str(Refused(config.name, mistakes)))
    shape, device = _shape(config), _device(config, where, gpu_memory)
    if device and (found := too_old(device)):
        refuse(found)
    assumed = device or common_gpus()[1]
    plan = plan_memory(config, shape, assumed)
    if device is None:
        name_them = "name them with --gpu-memory or --site"
        say(f"your GPUs are not known, taken for {assumed.name}: {name_them}; others are at the end\n")
    say(render_memory(config, shape, plan))
    say(render(make_plan(config, where)))
    if device is None:
        say(render_cards(config, shape, common_gpus()))
        return
    for notice in notices(config, shape, plan):
        note(str(notice))
    if found := problems(config, shape, plan):
        refuse(found)


def _load(run_file: Path, overrides: list[str] | None) -> RunConfig:
    """The run file, as far as a plan reads it."""
    try:
        config = load_run_file(run_file, overrides or [])
        if wrong := size_problems(config):
            raise RunFileError(run_file, wrong)
    except RunFileError as error:
        fail(str(error))
    return config


def _shape(config: RunConfig) -> ModelShape:
    shape = known_shape(config)
    if shape is None:
        fail(
            f"model: found no shape at {config.model.path}; wanted a directory with a config.json, or a name that "
            "`ebbtide models` lists: set model.name"
        )
    return shape


def _device(config: RunConfig, site: Site, gpu_memory: str | None) -> Device | None:
    """What to plan for; None: some GPU."""
    if gpu_memory is not None and config.placement.device == "cpu":
        fail("--gpu-memory: found placement.device cpu beside it; wanted one of the two: leave the other out")
    try:
        if gpu_memory is not None:
            return named_gpu(gpu_memory)
    except Wrong as wrong:
        fail(f"--gpu-memory: {wrong}")
    if on_cpu(config, site):
        return own_host()
    return site_gpu(site) or own_gpu()
