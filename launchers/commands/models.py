"""`ebbtide models`: the models known by name."""

from __future__ import annotations

from typing import Annotated

import typer

from launchers.commands.terminal import say

EXAMPLE = "ebbtide models qwen3-4b"


def command(
    name: Annotated[str | None, typer.Argument(help="One model in full; all in a table if left out.")] = None,
) -> None:
    """List the models that are known by name."""
    from launchers.models import show

    say(show(name))
