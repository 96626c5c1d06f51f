"""`ebbtide report`: runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.files import write_atomically
from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import fail, say

EXAMPLE = "ebbtide report runs/NAME"
FILE_NAME = "report.html"


def command(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="One or several run directories.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file; RUN_DIR/report.html if left out.")
    ] = None,
) -> None:
    """Write runs as one HTML page that opens offline: verdict, curves, time, memory, samples, settings, attempts.

    Works while a run goes on. Of several runs the curves are drawn over each other, and the settings that differ are
    listed; the page goes into the first one's directory.
    """
    directories = list({directory.path: directory for directory in map(existing_run_dir, run_dirs)}.values())
    path = output or directories[0].path / FILE_NAME
    if path.is_dir():
        fail(f"--output: found the folder {path}; wanted a file: write {path / FILE_NAME}")

    from launchers.report.page import report

    write_atomically(path, report(directories))
    say(f"{path} ({path.stat().st_size / 1000:.0f} kB)")
