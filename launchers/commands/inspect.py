"""`ebbtide inspect`: samples of a step."""

from __future__ import annotations

from typing import Annotated

import typer

from launchers.commands.terminal import RunDir, console, fail

EXAMPLE = "ebbtide inspect runs/NAME --step 3 --worst 2"


def command(
    run_dir: RunDir,
    step: Annotated[int | None, typer.Option(help="Which step; the last one if left out.")] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", metavar="SET", help="Samples of this evaluation set, not of training.")
    ] = None,
    best: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of highest reward.")] = None,
    worst: Annotated[int | None, typer.Option(metavar="K", help="Show the K samples of lowest reward.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only samples without a reward.")] = False,
    truncated: Annotated[bool, typer.Option("--truncated", help="Only samples that were cut off.")] = False,
    row: Annotated[int | None, typer.Option(metavar="N", help="Only samples of this row of the data.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write the samples as lines of JSON, all of them.")] = False,
) -> None:
    """Show samples of a step: prompt, response, reward, advantage, log-prob gap. Works while the run goes on."""
    from launchers.show.sample_choice import Choice, json_lines
    from launchers.show.samples import InspectError, show, stored_step

    choice = Choice(failed, truncated, row)
    if jsonl and (best is not None or worst is not None):
        fail("found --jsonl with --best or --worst; wanted one of them: a line of JSON has the reward, to sort by")
    try:
        if jsonl:
            for line in json_lines(stored_step(run_dir, step, evaluation), choice):
                typer.echo(line)
        else:
            console.print(show(run_dir, step, best, worst, choice, evaluation))
    except InspectError as error:
        fail(str(error))
