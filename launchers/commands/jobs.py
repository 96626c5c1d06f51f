"""The Slurm jobs of a run, for the commands that act on them."""

from __future__ import annotations

from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import Poller
from launchers.attempts.exit_codes import FAILED
from launchers.commands.terminal import fail
from launchers.show.run_status import Files, Status, read_files, status_now


def jobs_of(directory: RunDirectory) -> Files:
    """The run's files; a run that was never submitted ends the command."""
    files = read_files(directory)
    if not files.job_ids:
        fail(f"{directory.path}: found no job; wanted a run that was submitted: `ebbtide submit` does that")
    return files


def status_or_fail(directory: RunDirectory, poller: Poller) -> Status:
    """The run's status; if Slurm cannot be asked, the command ends."""
    status = status_now(directory, poller)
    if poller.error is not None:
        fail(poller.error, FAILED)
    return status
