"""The command line, `ebbtide COMMAND`: registers the modules of `launchers/commands`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from launchers.commands import (
    attach,
    cancel,
    doctor,
    inspect,
    logs,
    models,
    plan,
    resume,
    run,
    sbatch,
    status,
    submit,
    sweep,
)
from launchers.commands.terminal import console

COMMANDS = (run, resume, plan, submit, sbatch, sweep, status, logs, cancel, attach, doctor, inspect, models)

app = typer.Typer(
    help="Reinforcement-learning post-training of language models on Slurm clusters, without Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
for module in COMMANDS:
    app.command(module.__name__.rpartition(".")[2], epilog=f"Example: {module.EXAMPLE}")(module.command)


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
