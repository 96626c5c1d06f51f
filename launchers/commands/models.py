"""`ebbtide models`: the models known by name."""

from __future__ import annotations

from typing import Annotated

import typer

from launchers.commands.terminal import fail, say

EXAMPLE = "ebbtide models qwen3-4b"


def command(
    name: Annotated[
        str | None, typer.Argument(help="One model in full, by name or directory; all in a table if left out.")
    ] = None,
) -> None:
    """List the models that are known by name, or show one; of a directory also which name it has."""
    from launchers.show.model_table import show
    from modelcfg import UnknownModelError

    try:
        say(show(name))
    except UnknownModelError as error:
        fail(str(error))
