"""`ebbtide plan`: what a run will need of GPUs, hosts and disks, and who runs where; before anything is submitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common.mistake import Wrong
from core.checks import ModelFiles, check_job
from core.checks.epochs import with_steps
from core.config import RunConfig, RunFileError, load_run_file
from core.config.hub import not_in_cache, on_hub
from core.planner import Device, size_problems
from hpc.site.schema import Site
from launchers.commands.cluster import SiteFile, load_checked_site
from launchers.commands.terminal import Overrides, RunFile, fail, note, refuse, say
from launchers.show.memory_table import render_cards, render_memory
from launchers.submit.job_plan import render
from launchers.submit.memory_check import refusals, too_old, warnings
from launchers.submit.submission import Refused, Submission, job_mistakes, make_submission
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
    files = ModelFiles()
    config, where = _load(run_file, overrides, files), load_checked_site(site)
    shape, device = _shape(config, files), _device(config, where, gpu_memory)
    assumed = device or common_gpus()[1]
    submission = _submission(config, where, shape, assumed)
    if found := too_old(device):
        refuse(found)
    memory = submission.memory
    assert memory is not None
    if device is None:
        name_them = "name them with --gpu-memory or --site"
        say(f"your GPUs are not known, taken for {assumed.name}: {name_them}; others are at the end\n")
    say(render_memory(config, shape, memory))
    say(render(submission.plan))
    if device is None:
        say(render_cards(config, shape, common_gpus()))
        return
    for notice in warnings(submission):
        note(notice)
    if found := refusals(submission):
        refuse(found)


def _load(run_file: Path, overrides: list[str] | None, files: ModelFiles) -> RunConfig:
    """The run file, as far as a plan reads it."""
    try:
        config = with_steps(load_run_file(run_file, overrides or []))
        if wrong := [*check_job(config), *size_problems(config, files.shape(config.model))]:
            raise RunFileError(run_file, wrong)
    except RunFileError as error:
        fail(str(error))
    return config


def _submission(config: RunConfig, site: Site, shape: ModelShape, device: Device) -> Submission:
    try:
        submission = make_submission(config, site, shape=shape, device=device)
        if mistakes := list(job_mistakes(config, site)):
            raise Refused(config.name, mistakes)
    except Refused as error:
        fail(str(error))
    return submission


def _shape(config: RunConfig, files: ModelFiles) -> ModelShape:
    shape = files.shape(config.model)
    if shape is None and on_hub(config.model.path, "model"):
        fail(str(not_in_cache(config.model.path, "model").at("model.path")))
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
            return replace(named_gpu(gpu_memory), per_node=site.gpus_per_node or None)
    except Wrong as wrong:
        fail(f"--gpu-memory: {wrong}")
    if on_cpu(config, site):
        return own_host()
    return site_gpu(site) or own_gpu()
