"""Following a submitted run until it has ended, for `submit --wait`."""

from __future__ import annotations

import time

import typer

from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import Poller
from launchers.attempts.exit_codes import INTERRUPTED
from launchers.attempts.failure import read_record
from launchers.commands.foreground import show_result
from launchers.commands.terminal import console, say
from launchers.show.display import Display
from launchers.show.job_news import news
from launchers.show.run_state import RunState
from launchers.show.run_status import Status, status_now

INTERVAL_S = 1.0  # between looks at the run's files; Slurm is asked at the poller's interval


def wait_for_end(directory: RunDirectory) -> None:
    """Show progress until the run has ended; the command ends with the run's exit code: 0 complete, 1 not.

    Ctrl-C stops the waiting, not the job.
    """
    display = Display(console, "waiting for the job to start")
    try:
        status = _follow(directory, display)
    except KeyboardInterrupt:
        path = directory.path
        say(f"the job goes on. Look: ebbtide status {path}   stop: ebbtide cancel {path}")
        raise typer.Exit(INTERRUPTED) from None
    if status.state == RunState.COMPLETE:
        show_result(directory)
        return
    _show_failure(status, display)
    raise typer.Exit(1)


def _follow(directory: RunDirectory, display: Display) -> Status:
    poller, reader, said = Poller(), ProgressReader(directory.progress, from_end=True), ""
    with display:
        while True:
            status = status_now(directory, poller)
            display.show(reader.new_events())
            if not status.live:
                return status
            if (text := news(status)) != said:
                display.note(text)
                said = text
            time.sleep(INTERVAL_S)


def _show_failure(status: Status, display: Display) -> None:
    directory, last = status.directory, status.history.last
    say(f"{status.state}: {status.reason}" if status.reason else status.state)
    if last is None:
        say(f"what Slurm wrote: ebbtide logs {directory.path} --role batch")
        return
    folder = directory.attempt(last.number)
    failure = read_record(folder)
    if failure is not None or status.state == RunState.FAILED:
        display.failed(failure, directory.path, folder, resume="ebbtide submit --resume")
    else:
        say(f"go on from the last checkpoint: ebbtide submit --resume {directory.path}")
