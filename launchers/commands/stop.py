"""`ebbtide stop`: have a run save and end, here or on a cluster, and wait until it has."""

from __future__ import annotations

from typing import Annotated

import typer

from common.waiting import wait_until
from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import Poller
from launchers.attempts.exit_codes import FAILED
from launchers.attempts.history import Attempt, read_history
from launchers.attempts.stop_request import ask_to_stop
from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import RunDir, fail, say
from launchers.show.run_status import status_now
from launchers.show.saved import saved_text

EXAMPLE = "ebbtide stop runs/NAME"
POLL_S = 0.5


def command(
    run_dir: RunDir,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait until it has ended.")] = 600.0,
) -> None:
    """Have a run save and end: a rollout is broken off, an update is finished first. It is not requeued.

    `ebbtide resume` or `ebbtide submit --resume` goes on from there. To end it without saving: `ebbtide cancel`.
    """
    directory = existing_run_dir(run_dir)
    working = _working(directory)
    if not ask_to_stop(directory.attempt(working.number)):
        found = f"{directory.attempt(working.number)}: found no way to leave a file there"
        fail(f"{found}; wanted a folder with space: `ebbtide cancel {run_dir}` ends the run without saving", FAILED)
    say(f"attempt {working.number}: told to save and end")
    if not wait_until(lambda: _last(directory).how is not None, timeout_s, POLL_S):
        remedy = f"wait longer (--timeout-s), or `ebbtide cancel {run_dir}`, which does not save"
        fail(f"found attempt {working.number} alive after {timeout_s:.0f} s; wanted an ended one: {remedy}", FAILED)
    say(f"attempt {working.number}: {_last(directory).how}; {saved_text(directory)}")


def _working(directory: RunDirectory) -> Attempt:
    """The attempt that is at work; where there is none the command ends."""
    status = status_now(directory, Poller())
    last = status.history.last
    if last is None or last.how is not None or not status.state.at_work:
        cancel = f": `ebbtide cancel {directory.path}` takes it out of the queue" if status.live else ""
        fail(f"{directory.path}: found a run that is {status.state}; wanted one that is at work{cancel}")
    return last


def _last(directory: RunDirectory) -> Attempt:
    last = read_history(directory).last
    assert last is not None
    return last
