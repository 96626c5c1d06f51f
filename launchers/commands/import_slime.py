"""`ebbtide import-slime`: a launch script of slime becomes a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launchers.commands.terminal import fail, note, say

EXAMPLE = "ebbtide import-slime run-qwen3-4B.sh --env BASE_DIR=/data --out run.yaml"


def command(
    script: Annotated[Path, typer.Argument(help="The launch script, with `ray job submit … train.py …`.")],
    models_dir: Annotated[
        list[Path] | None,
        typer.Option("--models-dir", help="A folder with model files that the script sources, if it is not there."),
    ] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable that the script expects; may be given often."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the run file goes; left out: printed.")] = None,
) -> None:
    """Make a run file of a launch script of slime. The script is read, and never run.

    Each key has the flag that it comes from. Defaults of slime that differ are written out.
    Flags without a counterpart stand above, with the reason and what to do.
    """
    from common.files import write_atomically
    from launchers.moving_in.import_script import import_script
    from launchers.moving_in.shell import ScriptError
    from launchers.moving_in.summary import summary

    if out is not None and out.exists():
        fail(f"--out {out}: found a file there; wanted a new one: choose another name, or remove it")
    try:
        found = import_script(script, _variables(environment or []), models_dir or [])
    except ScriptError as error:
        fail(f"{script}: {error}")
    if out is None:
        say(found.text)
    else:
        write_atomically(out, found.text)
    note(summary(found, script.name))
    if out is not None:
        note(f"written: {out}; ebbtide plan {out} checks it and says what it needs")


def _variables(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            fail(f"--env {text}: found no NAME=VALUE; wanted a variable: write e.g. --env BASE_DIR=/data")
        found[name] = value
    return found
