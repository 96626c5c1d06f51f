"""The command line, `ebbtide COMMAND`: registers the modules of `launchers/commands`."""

from __future__ import annotations

import errno
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from common.mistake import MistakesError, Wrong
from launchers.commands import (
    attach,
    cancel,
    check,
    convert,
    diff,
    doctor,
    eval,
    export,
    fetch,
    import_slime,
    inspect,
    logs,
    models,
    plan,
    profile,
    replay,
    report,
    resume,
    run,
    sbatch,
    status,
    stop,
    submit,
    sweep,
)
from launchers.commands.terminal import USAGE_ERROR, console, note

# what a user can mend: permissions, a quota, a full disk, a file where a folder should be
OF_THE_PLACE = ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "EISDIR", "ENAMETOOLONG")

FULL = ("ENOSPC", "EDQUOT")  # told of a write, which knows no name

COMMANDS = (
    run,
    check,
    resume,
    plan,
    submit,
    sbatch,
    sweep,
    status,
    logs,
    stop,
    cancel,
    attach,
    doctor,
    inspect,
    report,
    profile,
    replay,
    diff,
    models,
    eval,
    export,
    convert,
    fetch,
    import_slime,
)

app = typer.Typer(
    help="Reinforcement-learning post-training of language models on Slurm clusters, without Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
for module in COMMANDS:
    app.command(module.__name__.rpartition(".")[2].replace("_", "-"), epilog=f"Example: {module.EXAMPLE}")(
        module.command
    )


@app.callback(invoke_without_command=True)
def common(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options that come before the command."""
    if show_version:
        console.print(f"ebbtide {version('ebbtide')}", highlight=False)
        raise typer.Exit


def main() -> None:
    """Entry point of the `ebbtide` command. A place that cannot be used is told without a traceback."""
    try:
        app()
    except (Wrong, MistakesError) as error:  # told in full, wherever it was found
        note(str(error))
        sys.exit(USAGE_ERROR)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0)
        if code not in OF_THE_PLACE or (error.filename is None and code not in FULL):
            raise
        remedy = "choose another, or see to its permissions and free space"
        where = error.filename or "a file that was being written"
        note(f"{where}: found {error.strerror}; wanted a place that can be used: {remedy}")
        sys.exit(1)
