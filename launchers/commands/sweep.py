"""`ebbtide sweep`: the same run with every combination of some settings, as one job array."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common.mistake import Wrong
from core.run_dir.run_directory import RunDirectory
from hpc.sbatch.job import JobSpec
from hpc.slurm.commands import SlurmError, run_command, sbatch_command
from launchers.attempts.exit_codes import FAILED
from launchers.attempts.job_record import JobRecord
from launchers.commands.cluster import SiteFile, check_on_cluster, load_submission, write_inputs
from launchers.commands.terminal import Overrides, RunFile, fail, say
from launchers.commands.trial import call_reward
from launchers.show.sweep_table import Sweep
from launchers.submit.grid import GridError, overrides, parse_grid, points
from launchers.submit.submission import Submission

EXAMPLE = "ebbtide sweep run.yaml --grid train.lr=1e-6,3e-6 --grid algorithm.eps_clip=0.1,0.2 --limit 2"


def command(
    run_file: RunFile,
    grid: Annotated[
        list[str],
        typer.Option("--grid", metavar="KEY=V1,V2", help="Values of a key. Several: all combinations."),
    ],
    site: SiteFile = None,
    settings: Overrides = None,
    sweep_dir: Annotated[
        Path | None, typer.Option(help="Where the run directories go; a new folder under runs/ if left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many runs may work at the same time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and print the script; submit nothing.")] = False,
) -> None:
    """Submit a run for every combination of settings, as one job array; `ebbtide status SWEEP_DIR` is its table.

    Each combination has a run directory of its own. An array has no parts: several components share one allocation.
    """
    try:
        combinations = points(parse_grid(grid))
    except GridError as error:
        fail(str(error))
    submissions = [_submission(run_file, [*(settings or []), *overrides(point)], site) for point in combinations]
    _refuse_unequal(submissions)
    first = submissions[0]
    call_reward(first.config, elsewhere=True)
    path = _new_sweep_dir(first, sweep_dir)
    found = Sweep(first.config.name, tuple(combinations))
    job = _array_job(first, path, found, limit)
    check_on_cluster(first, path, required=not dry_run, job=job)
    script = _write(found, submissions, path, job)
    if dry_run:
        say(f"{script.read_text(encoding='utf-8')}nothing was submitted: {path}")
        return
    _send(found, submissions, path, script)


def _submission(run_file: Path, settings: list[str], site: Path | None) -> Submission:
    """One point of the grid, checked like a run of its own; an array cannot be heterogeneous."""
    return load_submission(run_file, [*settings, "slurm.heterogeneous=false"], site)


def _refuse_unequal(submissions: Sequence[Submission]) -> None:
    """All elements of an array ask Slurm for the same."""
    for submission in submissions[1:]:
        for what in ("components", "time_minutes"):
            values = [getattr(each.plan, what) for each in (submissions[0], submission)]
            if values[0] != values[1]:
                fail(
                    f"--grid: found points that ask Slurm for different {what.replace('_', ' ')}; wanted a job array, "
                    "whose runs are alike: leave keys of placement and slurm out, and make a sweep for each"
                )


def _array_job(submission: Submission, path: Path, sweep: Sweep, limit: int | None) -> JobSpec:
    last = len(sweep.points) - 1
    try:
        return replace(
            submission.job(path),
            array=f"0-{last}{f'%{limit}' if limit else ''}",
            array_run_dirs=tuple(directory.path for directory in sweep.directories(path)),
        )
    except Wrong as wrong:
        fail(str(wrong))


def _new_sweep_dir(submission: Submission, wanted: Path | None) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = wanted or submission.config.runs_dir / f"{submission.config.name}-sweep-{stamp}"
    if path.exists() and any(path.iterdir()):
        fail(f"{path}: found something in it; wanted an empty folder: choose another --sweep-dir")
    return path.resolve()


def _write(sweep: Sweep, submissions: Sequence[Submission], path: Path, job: JobSpec) -> Path:
    from hpc.sbatch.text import sbatch_text

    script = RunDirectory(path).job_script
    script.parent.mkdir(parents=True)
    for submission, directory in zip(submissions, sweep.directories(path), strict=True):
        write_inputs(submission, directory)
    about = (f"Sweep of run {sweep.name!r}: {len(sweep.points)} runs, one array element each.",)
    script.write_text(sbatch_text(job, about), encoding="utf-8")
    sweep.write(path)
    return script


def _send(sweep: Sweep, submissions: Sequence[Submission], path: Path, script: Path) -> None:
    try:
        job_id = run_command(sbatch_command("--parsable", str(script)), 60.0).strip().partition(";")[0]
    except SlurmError as error:
        fail(str(error), FAILED)
    replace(sweep, job_id=job_id).write(path)
    site = str(submissions[0].site_file) if submissions[0].site_file else None
    for index, directory in enumerate(sweep.directories(path)):
        JobRecord(f"{job_id}_{index}", site=site, script=str(script)).write(directory)
    say(f"sweep directory: {path}\njob array: {job_id}, {len(sweep.points)} runs")
    say(f"  table:  ebbtide status {path}\n  stop:  ebbtide cancel {path}")
