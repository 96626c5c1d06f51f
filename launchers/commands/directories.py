"""Run directories as the commands make and find them."""

from __future__ import annotations

import time
from pathlib import Path

from core.config.schema import RunConfig
from core.run_dir.run_directory import RUN_FILE, RunDirectory
from launchers.commands.terminal import fail


def new_run_dir(config: RunConfig, wanted: Path | None) -> RunDirectory:
    """An empty run directory, made if it is not there."""
    path = new_run_path(config, wanted)
    path.mkdir(parents=True, exist_ok=True)
    return RunDirectory(path)


def new_run_path(config: RunConfig, wanted: Path | None) -> Path:
    """The folder of a new run: the wanted one, or one under `runs_dir`. A folder that holds something is refused."""
    path = wanted or config.runs_dir / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if path.is_file():
        fail(f"{path}: found a file; wanted a folder, or nothing: choose another --run-dir")
    if path.exists() and any(path.iterdir()):
        go_on = f", or go on with this run: `ebbtide resume {path}`, on a cluster `ebbtide submit --resume {path}`"
        is_run = RunDirectory(path).ledger.exists()
        fail(
            f"{path}: found something in it; wanted an empty folder: choose another --run-dir{go_on if is_run else ''}"
        )
    return path.resolve()


def existing_run_dir(path: Path) -> RunDirectory:
    """The run directory at `path`; a folder that is none is refused."""
    directory = RunDirectory(path.resolve())
    if not directory.run_file.exists():
        fail(f"{path}: found no run.yaml in it; wanted a run directory: `ebbtide status` lists those in runs/")
    return directory


def begun_run_dir(path: Path) -> RunDirectory:
    """The run directory at `path`, of a run that has begun; a folder that only holds a run file is refused."""
    directory = existing_run_dir(path)
    if not directory.ledger.exists():
        remedy = f"begin one with `ebbtide run {path}/{RUN_FILE}`, on a cluster `ebbtide submit`"
        fail(f"{path}: found a {RUN_FILE} and no ledger; wanted a run that has begun: {remedy}")
    return directory


def runs_in(folder: Path) -> list[RunDirectory]:
    """The run directories in a folder, and those of its sweeps, the newest last."""
    files = [*folder.glob(f"*/{RUN_FILE}"), *folder.glob(f"*/*/{RUN_FILE}")]
    return [RunDirectory(file.parent.resolve()) for file in sorted(files, key=lambda file: file.stat().st_mtime)]
