"""`ebbtide status`: what runs are doing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import SHORTEST_INTERVAL_S, Poller
from launchers.attempts.provenance import read_provenance
from launchers.commands.directories import existing_run_dir, runs_in
from launchers.commands.terminal import console, fail
from launchers.show import status_table
from launchers.show import sweep_table as sweep
from launchers.show.run_status import snapshot, status_now

EXAMPLE = "ebbtide status runs/NAME --watch"
MOST_RUNS = 20
WATCH_INTERVAL_S = 1.0

View = Callable[[Poller], tuple[RenderableType, bool]]  # what to show, and whether it may still change


def command(
    path: Annotated[
        Path | None, typer.Argument(help="A run or sweep directory; left out: the newest runs under runs/.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until it has ended.")] = False,
) -> None:
    """Show state, attempt, step, phase, step time, reward, walltime left, and why a job waits or failed."""
    view = _choose(path)
    poller = Poller()
    shown, live = view(poller)
    if not watch:
        console.print(shown)
        return
    try:
        _watch(view, poller, shown, live)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _watch(view: View, poller: Poller, shown: RenderableType, live: bool) -> None:
    """Files are read every second, Slurm is asked every `SHORTEST_INTERVAL_S`."""
    with Live(shown, console=console, auto_refresh=False) as screen:
        while live:
            time.sleep(WATCH_INTERVAL_S if console.is_terminal else SHORTEST_INTERVAL_S)
            shown, live = view(poller)
            screen.update(shown, refresh=True)


def _choose(path: Path | None) -> View:
    if path is None:
        directories = runs_in(Path("runs"))[-MOST_RUNS:]
        if not directories:
            fail("runs/: found no runs; wanted some: name a run directory, or start one with `ebbtide submit`")
        return lambda poller: _several(directories, poller)
    found = sweep.read_sweep(path)
    if found is not None:
        return lambda poller: _sweep(found, path, poller)
    directory = existing_run_dir(path)
    return lambda poller: _one(directory, poller)


def _one(directory: RunDirectory, poller: Poller) -> tuple[RenderableType, bool]:
    status = status_now(directory, poller)
    last = status.history.last
    if last is None:
        return _with_error(status_table.one(status), poller), status.live
    folder = directory.attempt(last.number)
    return _with_error(status_table.one(status, read_provenance(folder), _engines(folder)), poller), status.live


def _engines(folder: Path) -> str:
    """What the engines of an attempt compute with; nodes that differ are told apart."""
    notes = AttemptFolder(folder).engines_notes()
    texts = {path.stem.removeprefix("engines-"): path.read_text(encoding="utf-8", errors="replace") for path in notes}
    if len(set(texts.values())) < 2:
        return next(iter(texts.values()), "")
    return "; ".join(f"node {node}: {text}" for node, text in texts.items())


def _several(directories: list[RunDirectory], poller: Poller) -> tuple[RenderableType, bool]:
    statuses = snapshot(directories, poller, time.time())
    return _with_error(status_table.many(statuses), poller), any(status.live for status in statuses)


def _sweep(found: sweep.Sweep, path: Path, poller: Poller) -> tuple[RenderableType, bool]:
    statuses = snapshot(found.directories(path.resolve()), poller, time.time())
    return _with_error(sweep.table(found, statuses), poller), any(status.live for status in statuses)


def _with_error(shown: RenderableType, poller: Poller) -> RenderableType:
    """Slurm's silence is said once, below the last states that are known."""
    return Group(shown, Text(poller.error, style="yellow")) if poller.error else shown
