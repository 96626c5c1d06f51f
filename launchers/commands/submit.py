"""`ebbtide submit`: check everything, then submit a run as one Slurm job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.exit_codes import FAILED
from launchers.attempts.job_record import JobRecord, read_record
from launchers.attempts.reserve import room_for
from launchers.commands.changes import AcceptChanges, compare_files
from launchers.commands.cluster import SiteFile, check_on_cluster, load_submission, note_memory, write_inputs
from launchers.commands.directories import existing_run_dir, new_run_path
from launchers.commands.terminal import NewRunDir, Overrides, fail, say
from launchers.commands.trial import call_reward
from launchers.submit.job_plan import render
from launchers.submit.submission import Submission, chain_length, next_in_chain

EXAMPLE = "ebbtide submit run.yaml --site site.yaml --set slurm.time=04:00:00 --wait"


def command(
    run_file: Annotated[Path | None, typer.Argument(help="The YAML file that describes the run.")] = None,
    site: SiteFile = None,
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Go on with this run, from its newest sound checkpoint, in a new job."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and print script, run file and layout; submit nothing.")
    ] = False,
    accept_changes: AcceptChanges = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show progress until the run has ended; exit with its code.")
    ] = False,
) -> None:
    """Submit a run to Slurm: check run file, site and cluster first, then hand one job to sbatch.

    The run directory must be one that all nodes see. With --resume, --set changes keys of slurm only.
    """
    if (run_file is None) == (resume is None):
        given = "no run" if run_file is None else "a run file and a run directory"
        fail(f"found {given}; wanted one: give either a run file or --resume RUN_DIR")
    if run_file is not None:
        submission = load_submission(run_file, overrides, site)
        directory = RunDirectory(new_run_path(submission.config, run_dir))
    else:
        assert resume is not None
        directory = _resumable(resume, run_dir)
        submission = load_submission(directory.run_file, _only_slurm(overrides), site)
        compare_files(directory, accept=accept_changes)
    note_memory(submission)
    call_reward(submission.config, elsewhere=True)
    check_on_cluster(submission, directory.path, required=not dry_run)
    with _undone_on_failure(directory, fresh=resume is None):
        script = prepare(submission, directory)
        if dry_run:
            _show(submission, directory, script)
            return
        record = send(submission, directory)
    _show_job(directory, record)
    if wait:
        from launchers.commands.waiting import wait_for_end

        wait_for_end(directory)


def prepare(submission: Submission, directory: RunDirectory) -> Path:
    """Write run file and script into the run directory; returns the script's path."""
    from hpc.executor.executor import JobExecutor

    script = write_inputs(submission, directory)
    script.write_text(JobExecutor(submission.job(directory.path)).script(), encoding="utf-8")
    return script


def send(submission: Submission, directory: RunDirectory) -> JobRecord:
    """Hand the job, or all jobs of a chain, to sbatch through Submitit; writes and returns the record."""
    from hpc.executor.executor import JobExecutor, SubmitError
    from launchers.node.submitted_task import SubmittedTask

    job, before = submission.job(directory.path), read_record(directory)
    ids: list[str] = []
    directory.job_record.parent.mkdir(parents=True, exist_ok=True)
    try:
        for _ in range(chain_length(submission)):
            executor = JobExecutor(next_in_chain(job, ids[-1] if ids else None))
            with room_for(directory.job_record) as make_room:
                ids.append(str(executor.submit(SubmittedTask(directory.path)).job_id))
                make_room()
                record = JobRecord(
                    job_id=ids[0],
                    chain=tuple(ids) if len(ids) > 1 else (),
                    site=str(submission.site_file) if submission.site_file else None,
                    script=str(directory.job_script),
                    earlier=(*before.earlier, *before.job_ids) if before else (),
                )
                record.write(directory)  # at once: what the queue has is known, whatever happens to the rest of a chain
    except SubmitError as error:
        queued = f"\nsubmitted before it: job {', '.join(ids)}; `ebbtide cancel {directory.path}` ends them"
        fail(f"{error}{queued if ids else ''}", FAILED)
    return record


def _resumable(path: Path, run_dir: Path | None) -> RunDirectory:
    """An existing run that neither works nor waits."""
    from hpc.slurm.queue import Poller
    from launchers.show.run_state import RunState
    from launchers.show.run_status import status_now

    if run_dir is not None:
        fail("found --run-dir and --resume; wanted one of the two: leave --run-dir out, a resumed run stays in place")
    directory = existing_run_dir(path)
    poller = Poller()
    status = status_now(directory, poller)
    if status.state == RunState.COMPLETE:
        say(f"{directory.path} is complete: nothing to do.")
        raise typer.Exit
    if status.live and status.state != RunState.NOT_STARTED:
        why = poller.error or f"look at it with `ebbtide status {path}`, stop it with `ebbtide cancel {path}`"
        fail(f"{path}: found a run that is {status.state} (job {status.job_id}); wanted a run that has stopped: {why}")
    return directory


def _only_slurm(overrides: list[str] | None) -> list[str] | None:
    for text in overrides or []:
        if not text.startswith("slurm."):
            fail(
                f"--set {text}: found a key outside slurm; wanted keys of slurm, with --resume: leave it out, for a "
                "resumed run keeps its settings, so that it goes on as if it had never stopped"
            )
    return overrides


@contextmanager
def _undone_on_failure(directory: RunDirectory, *, fresh: bool) -> Iterator[None]:
    """A new run directory is removed again if nothing came of the submission."""
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a write that failed knows no name
            error.filename = str(directory.path)
        if fresh and read_record(directory) is None:
            shutil.rmtree(directory.path, ignore_errors=True)
        raise


def _show(submission: Submission, directory: RunDirectory, script: Path) -> None:
    for path in (script, directory.run_file):
        say(f"# ---- {path}\n{path.read_text(encoding='utf-8')}")
    say(f"# ---- who runs where\n{render(submission.plan)}")
    say(f"nothing was submitted; to do so: ebbtide submit --resume {directory.path}")


def _show_job(directory: RunDirectory, record: JobRecord) -> None:
    path = directory.path
    say(f"site file: {record.site or 'none found; `ebbtide doctor --write site.yaml` makes one'}")
    say(f"run directory: {path}")
    say(f"job: {', '.join(record.job_ids)}")
    for what, words in {"look": "status --watch", "logs": "logs --follow", "stop": "cancel"}.items():
        name, _, option = words.partition(" ")
        say(f"  {what}:  ebbtide {name} {path} {option}".rstrip())
