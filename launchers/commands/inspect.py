"""`ebbtide inspect`: samples of a step."""

from __future__ import annotations

from typing import Annotated

import typer

from launchers.commands.terminal import RunDir, console, fail

EXAMPLE = "ebbtide inspect runs/NAME --step 3 --worst 2"


def command(
    run_dir: RunDir,
    step: Annotated[int | None, typer.Option(help="Which step; the last one if left out.")] = None,
    best: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of highest reward.")] = None,
    worst: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of lowest reward.")] = None,
) -> None:
    """Show samples of a step: prompt, response, reward, advantage, log-prob gap. Works while the run goes on."""
    from launchers.show.samples import InspectError, show

    try:
        console.print(show(run_dir, step, best, worst))
    except InspectError as error:
        fail(str(error))
