"""`ebbtide profile`: a run up to a step, and a trace of that step."""

from __future__ import annotations

import gzip
import json
from typing import Annotated, Any

import typer

from common.files import renamed_when_complete
from common.mistake import Wrong
from core.checks import ModelFiles
from core.checks.parallel import num_trainers
from core.config.schema import RunConfig
from core.config.sections.eval import EvalConfig
from core.run_dir.run_directory import RunDirectory
from core.run_dir.trace_names import rank_trace
from launchers.commands.directories import new_run_path
from launchers.commands.foreground import current_allocation, load, run_to_end
from launchers.commands.run import Local, begin, site_that_fits
from launchers.commands.terminal import NewRunDir, Overrides, RunFile, console, fail, note, say
from launchers.commands.trial import call_reward
from launchers.traces.breakdown import breakdown
from launchers.traces.merge import Cut, merge
from launchers.traces.rank_trace import read_rank_trace
from launchers.traces.table import time_table

EXAMPLE = "ebbtide profile examples/smollm2-arithmetic.yaml --step 2"
MOST_EVENTS = 1_000_000  # more than Perfetto shows with ease


def command(
    run_file: RunFile,
    step: Annotated[int, typer.Option(min=0, help="Which step; those before it are run, too, and not traced.")],
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    local: Local = False,
    events: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Most events of the trace; the longest are kept.")
    ] = MOST_EVENTS,
) -> None:
    """Show where the time of a step goes: run up to it, trace it on every trainer rank, print a table.

    The trace of all ranks is RUN_DIR/profile/trace.json.gz, for Perfetto (ui.perfetto.dev) or chrome://tracing.
    The steps are those of `ebbtide run`; evaluations, checkpoints and sinks of metrics are left out.
    """
    allocation, files = current_allocation(local), ModelFiles()
    config = load(run_file, overrides or [], allocation, files)
    _refuse_step(config, step)
    site = site_that_fits(config, allocation, files)
    call_reward(config)
    path = new_run_path(config, run_dir)
    directory = begin(_profiling(config, RunDirectory(path), step), path, allocation, site)
    directory.profile.mkdir()
    run_to_end(directory, allocation)
    _show(directory, step, num_trainers(config.placement), events)


def _refuse_step(config: RunConfig, step: int) -> None:
    """End the command where the run never comes to the step."""
    if config.placement.trainers == "none":
        fail("placement.trainers: found none; wanted a run with steps: profile the run file of one that trains")
    if step >= config.rollout.num_rollout:
        last = config.rollout.num_rollout - 1
        fail(
            f"--step: found {step}; wanted 0 to {last}, as rollout.num_rollout is {last + 1}: choose one of these, or "
            f"set rollout.num_rollout to {step + 1} or more"
        )


def _profiling(config: RunConfig, directory: RunDirectory, step: int) -> RunConfig:
    """The run file with the schedule that traces; the rest that steps depend on stays as it is."""
    placement = config.placement
    options: dict[str, Any] = {
        "step": step,
        "folder": str(directory.profile),
        "traced": placement.schedule,
        "traced_options": placement.schedule_options,
        "settings": placement.model_dump(mode="json"),
    }
    unsaved = {"interval": 0, "every": None, "save_hf": "off"}
    return config.model_copy(
        update={
            "name": f"{config.name}-profile",
            "placement": placement.model_copy(update={"schedule": "profile", "schedule_options": options}),
            "eval": EvalConfig(),
            "checkpoint": config.checkpoint.model_copy(update=unsaved),
            "logging": config.logging.model_copy(update={"sinks": (), "tensorboard": None}),
        }
    )


def _show(directory: RunDirectory, step: int, num_ranks: int, most_events: int) -> None:
    """Put the ranks' traces together, in place of them, and print the table."""
    files = [directory.profile / rank_trace(rank) for rank in range(num_ranks)]
    try:
        traces = [read_rank_trace(file, rank) for rank, file in enumerate(files)]
        merged, cuts = merge(traces, most_events)
        table = time_table(step, [breakdown(trace) for trace in traces])
    except Wrong as error:
        fail(str(error), code=1)
    place = directory.profile / "trace.json.gz"
    with renamed_when_complete(place) as unfinished, gzip.open(unfinished, "wt", encoding="utf-8") as written:
        json.dump(merged, written)
    for file in files:
        file.unlink()
    console.print(table)
    for cut in cuts:
        note(_told(cut))
    say(f"trace:     {place}   (open it at https://ui.perfetto.dev)")


def _told(cut: Cut) -> str:
    return (
        f"trainer {cut.rank}: the trace has the {cut.kept:,} longest of {cut.found:,} events, and no arrows; left out "
        f"are those of {cut.shorter_us:.1f} µs and less (the table counts all): for more, --events"
    )
