"""`ebbtide replay`: the update of a stored step once more, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from core.checks import check_sections
from core.config import RunFileError, dump_run_file, load_run_file
from core.config.schema import RunConfig
from core.config.sections.eval import EvalConfig
from core.config.sections.slurm import SlurmConfig
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.kept_site import kept_site
from launchers.commands.directories import begun_run_dir
from launchers.commands.foreground import current_allocation, refuse_other_nodes, run_to_end
from launchers.commands.run import Local, begin
from launchers.commands.terminal import NewRunDir, Overrides, RunDir, console, fail, refuse, say

EXAMPLE = "ebbtide replay runs/NAME --step 3 --set algorithm.eps_clip=0.1"
SECTIONS = ("algorithm", "critic", "train", "placement")  # whose keys an update depends on, beside model and samples
LAYOUT = "placement."  # says who computes, not what


def command(
    run_dir: RunDir,
    step: Annotated[int, typer.Option(help="Which step; it must be stored in RUN_DIR/steps.")],
    overrides: Overrides = None,
    sample: Annotated[
        str | None, typer.Option(metavar="GROUP.INDEX", help="Show this sample of the step token by token, too.")
    ] = None,
    out: NewRunDir = None,
    local: Local = False,
) -> None:
    """Compute the update of a stored step again: its tokens and rewards are those of the store, and no engine starts.

    Goes on from the nearest checkpoint before it. With the run's own settings and layout, losses and gradient norms on
    CPUs are equal to the last bit; --set algorithm.KEY says what the step would have been with another setting.
    """
    from core.trajectory import TrajectoryError, read_step, step_path
    from launchers.show.replayed import compared, sample_place, tokens_table

    run, changes = begun_run_dir(run_dir), overrides or []
    try:
        recorded = read_step(step_path(run.path, step))
    except TrajectoryError as error:
        fail(str(error))
    place = None if sample is None else sample_place(recorded, sample)
    allocation = current_allocation(local)
    nodes = [f"placement.num_nodes={len(allocation.nodes)}"] if allocation else []
    config = _changed(run, [*changes, *nodes])
    own = _changed(run, [*(one for one in changes if one.startswith(LAYOUT)), *nodes])  # of the steps before it
    refuse_other_nodes(config, allocation)
    if config.algorithm.routing_replay == "engine" and recorded.routing is None:
        fail(
            f"{step_path(run.path, step)}: found no experts of the engine; wanted those that algorithm.routing_replay "
            "engine replays: set it to trainer or none, or replay a run that has stored them"
        )
    begun, site = _begin(run, step), kept_site(run)
    if begun < step and config != own:
        directory = begin(_replaying(own, run, begun, step - 1, keep=True), out, allocation, site)
        run_to_end(directory, allocation)
        dump_run_file(_replaying(config, run, begun, step), directory.run_file)
    else:
        directory = begin(_replaying(config, run, begun, step), out, allocation, site)
    run_to_end(directory, allocation)
    replayed = read_step(step_path(directory.path, step))
    console.print(compared(recorded, replayed))
    if place is not None:
        console.print(tokens_table(replayed, place, _decoder(config)))
    say(f"samples:   {directory.steps}/   (ebbtide inspect {directory.path} --step {step})")


def _changed(run: RunDirectory, changes: Sequence[str]) -> RunConfig:
    """The run file with some keys changed; those that the stored samples contradict are refused."""
    others = [one for one in changes if one.partition(".")[0] not in SECTIONS]
    if others:
        fail(
            f"found --set {others[0]}; wanted a key of {', '.join(SECTIONS)}: samples and rewards are those of the "
            "store: leave it out, or train anew with `ebbtide run`"
        )
    try:
        config = load_run_file(run.run_file, changes)
    except RunFileError as error:
        fail(str(error))
    config = config.model_copy(update={"slurm": SlurmConfig()})
    if mistakes := check_sections(config, (*SECTIONS, "rollout")):
        refuse(mistakes)
    return config


def _begin(run: RunDirectory, step: int) -> int:
    """The most steps up to this one that a whole checkpoint holds; 0: none, so from the model that the run began with.

    Ends the command where a step between the two is not stored.
    """
    from core.loop.manifest import inspect_checkpoint
    from core.trajectory import list_steps

    held = [one for one in reversed(run.checkpoint_steps()) if one <= step]
    begun = next((one for one in held if inspect_checkpoint(run.checkpoint(one))[1] is not None), 0)
    missing = set(range(begun, step)) - set(list_steps(run.path))
    if missing:
        fail(
            f"{run.steps}: found no step {min(missing)}; wanted all steps from {begun}, where the nearest checkpoint "
            f"stands, to {step}: choose a step behind another checkpoint ({run.checkpoint_steps()})"
        )
    return begun


def _replaying(config: RunConfig, run: RunDirectory, begun: int, last: int, *, keep: bool = False) -> RunConfig:
    """The run file of the replay: a trainer alone, whose steps are stored, and nobody is told of them."""
    options: dict[str, Any] = {"run": str(run.path), "begin": begun, "last": last, "keep": keep}
    placement = {"engines": "none", "schedule": "replay", "schedule_options": options}
    return config.model_copy(
        update={
            "name": f"{config.name}-replay",
            "placement": config.placement.model_copy(update=placement),
            "eval": EvalConfig(),
            "checkpoint": config.checkpoint.model_copy(update={"save_hf": "off"}),
            "logging": config.logging.model_copy(update={"sinks": (), "tensorboard": None}),
        }
    )


def _decoder(config: RunConfig) -> Callable[[Sequence[int]], str]:
    from core.pretrained.locate import locate
    from core.pretrained.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(locate(config.model.path))
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)
