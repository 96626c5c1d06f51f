"""`ebbtide diff`: what differs between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import console, fail, say
from launchers.show.plain_text import visible

EXAMPLE = "ebbtide diff runs/ONE runs/OTHER"


def command(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR RUN_DIR...", help="Two or more run directories.")],
) -> None:
    """Show what differs between runs: settings, versions of code, packages and files, first and last values of curves.

    `ebbtide report RUN_DIR RUN_DIR` draws the curves over each other.
    """
    directories = [existing_run_dir(path) for path in run_dirs]
    if len(directories) < 2:
        fail(f"found one run directory, {run_dirs[0]}; wanted two or more: name the one to compare it with")

    from launchers.report.comparison import compare
    from launchers.report.made_with import newest
    from launchers.report.run_facts import read_runs

    runs = read_runs(directories)
    names = [run.name for run in runs]
    for run in runs:
        for sentence in run.notes:
            say(visible(f"{run.name}: {sentence}"))
    found = compare(runs, [newest(run) for run in runs])
    if not {"settings", "versions"} & found.keys():
        say("Settings and versions are the same.")
    for heading, rows in found.items():
        console.print(_table(heading, names, rows))


def _table(heading: str, names: list[str], rows: dict[str, list[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in (heading, *names):
        table.add_column(Text(visible(title)), overflow="fold")
    for name, values in rows.items():
        table.add_row(*(Text(visible(text)) for text in (name, *values)))
    return table
