"""The command line: `ebbtide run | resume | inspect | models`."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from core.config import RunFileError, check_run_file, dump_run_file
from core.config.schema import RunConfig
from core.pretrained import needs_conversion
from core.progress import ProgressReader
from core.run_directory import RunDirectory

USAGE_ERROR = 2

app = typer.Typer(
    help="Reinforcement-learning post-training of language models on Slurm clusters, without Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
console = Console()
errors = Console(stderr=True)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the run file, e.g. --set train.lr=1e-6."),
]


@app.command(epilog="Example: ebbtide run examples/smollm2-arithmetic.yaml --set rollout.num_rollout=4")
def run(
    run_file: Annotated[Path, typer.Argument(help="The YAML file that describes the run.")],
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything goes; a new folder under runs/ if left out.")
    ] = None,
) -> None:
    """Train on this machine: check the run file, start trainers and engines, turn the loop."""
    config = _load(run_file, overrides or [])
    directory = RunDirectory(_new_run_dir(config, run_dir))
    dump_run_file(config, directory.run_file)
    console.print(f"run directory: {directory.path}", highlight=False, soft_wrap=True)
    if needs_conversion(config.model.path):
        console.print(f"converting the model of {config.model.path} first: once, about half a minute", soft_wrap=True)
    _attempt(directory)


@app.command(epilog="Example: ebbtide resume runs/smollm2-arithmetic-20260102-030405")
def resume(run_dir: Annotated[Path, typer.Argument(help="The run directory.")]) -> None:
    """Go on with a run from its newest sound checkpoint."""
    directory = RunDirectory(run_dir.resolve())
    if not directory.run_file.exists():
        _fail(f"{run_dir} is no run directory: it has no run.yaml. `ebbtide run` prints where it puts them.")
    config = _load(directory.run_file, [])
    if _complete(directory, config):
        console.print(f"{directory.path} is complete: all {config.rollout.num_rollout} steps are done.", soft_wrap=True)
        _show_result(directory)
    else:
        _attempt(directory)


@app.command(epilog="Example: ebbtide inspect runs/NAME --step 3 --worst 2")
def inspect(
    run_dir: Annotated[Path, typer.Argument(help="The run directory.")],
    step: Annotated[int | None, typer.Option(help="Which step; the last one if left out.")] = None,
    best: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of highest reward.")] = None,
    worst: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of lowest reward.")] = None,
) -> None:
    """Show samples of a step: prompt, response, reward, advantage, log-prob gap. Works while the run goes on."""
    from launchers.inspect import InspectError, show

    try:
        console.print(show(run_dir, step, best, worst))
    except InspectError as error:
        _fail(str(error))


@app.command(epilog="Example: ebbtide models qwen3-4b")
def models(
    name: Annotated[str | None, typer.Argument(help="One model in full; all in a table if left out.")] = None,
) -> None:
    """List the models that are known by name."""
    from launchers.models import show

    console.print(show(name))


@app.callback(invoke_without_command=True)
def common(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options that come before the command."""
    if show_version:
        console.print(f"ebbtide {version('ebbtide')}", highlight=False)
        raise typer.Exit


def main() -> None:
    """Entry point of the `ebbtide` command."""
    app()


def _attempt(directory: RunDirectory) -> None:
    from launchers.attempt import RunBusy, run_attempt
    from launchers.display import Display

    try:
        code = run_attempt(directory, Display(console))
    except RunBusy as error:
        _fail(str(error))
    if code == 0:
        _show_result(directory)
    raise typer.Exit(code)


def _complete(directory: RunDirectory, config: RunConfig) -> bool:
    from core.checkpoint import find_latest

    found = find_latest(directory.checkpoints)
    all_steps = found is not None and found[1].next_step >= config.rollout.num_rollout
    return all_steps and (directory.hf_model.exists() or not config.checkpoint.save_hf)


def _show_result(directory: RunDirectory) -> None:
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
    lines = [line for line, place in places.items() if place.exists()]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _new_run_dir(config: RunConfig, wanted: Path | None) -> Path:
    path = wanted or config.runs_dir / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if path.exists() and any(path.iterdir()):
        _fail(f"{path} exists and is not empty: choose another --run-dir, or go on with `ebbtide resume {path}`.")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _load(run_file: Path, overrides: list[str]) -> RunConfig:
    try:
        config = check_run_file(run_file, overrides)
    except RunFileError as error:
        _fail(str(error))
    if config.placement.num_nodes > 1:
        _fail(
            f"placement.num_nodes: found {config.placement.num_nodes}; wanted 1: `ebbtide run` starts the processes of "
            "this machine only, and submitting to several machines is not there yet"
        )
    return config


def _fail(message: str) -> NoReturn:
    errors.print(message, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(USAGE_ERROR)
