"""An attempt in the foreground, for `run` and `resume`: the run file checked, progress shown, the result at the end."""

from __future__ import annotations

from pathlib import Path

import typer

from core.config import RunFileError, check_run_file
from core.config.schema import RunConfig
from core.progress import ProgressReader
from core.run_directory import RunDirectory
from launchers.commands.terminal import console, fail, say


def load(run_file: Path, overrides: list[str]) -> RunConfig:
    """The checked run file of a run on this machine."""
    try:
        config = check_run_file(run_file, overrides)
    except RunFileError as error:
        fail(str(error))
    if config.placement.num_nodes > 1:
        fail(
            f"placement.num_nodes: found {config.placement.num_nodes}; wanted 1: `ebbtide run` starts the processes of "
            "this machine only, and submitting to several machines is not there yet"
        )
    return config


def attempt(directory: RunDirectory) -> None:
    """Run the next attempt to its end; its exit code becomes the command's."""
    from launchers.attempt import RunBusy
    from launchers.display import Display
    from launchers.local_run import run_attempt

    try:
        code = run_attempt(directory, Display(console))
    except RunBusy as error:
        fail(str(error))
    if code == 0:
        show_result(directory)
    raise typer.Exit(code)


def show_result(directory: RunDirectory) -> None:
    """The table of all steps, where everything lies, and what to type next."""
    from launchers.display import summary

    path = directory.path
    console.print(summary(ProgressReader(directory.progress).new_events()))
    places = {
        f"samples of every step:   {path}/steps/   (ebbtide inspect {path} --best 2 --worst 2)": directory.steps,
        f"curves:                  tensorboard --logdir {path}/tensorboard": directory.tensorboard,
        f"checkpoints:             {path}/checkpoints/": directory.checkpoints,
        f"the model:               {path}/hf/   (a HuggingFace directory)": directory.hf_model,
        f"logs:                    {path}/attempts/latest/": directory.path,
    }
    say("\n".join(line for line, place in places.items() if place.exists()))
