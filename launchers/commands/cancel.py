"""`ebbtide cancel`: stop a run's job, or its process on this machine, and wait until it is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from common.waiting import wait_until
from hpc.slurm.commands import SlurmError
from hpc.slurm.queue import Poller, cancel
from launchers.attempts.exit_codes import FAILED
from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import fail, say
from launchers.show.run_status import Files, read_files
from launchers.show.sweep_table import read_sweep

EXAMPLE = "ebbtide cancel runs/NAME"
POLL_S = 0.2
FIRST_LOOK_S = 2.0  # a job is usually gone by then; later looks keep to the poller's interval


def command(
    path: Annotated[Path, typer.Argument(help="A run or sweep directory.")],
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait until it is gone.")] = 120.0,
) -> None:
    """Stop a run for good: its job (all jobs of a chain or sweep), or its process on this machine.

    What it has saved stays, nothing more is saved (`ebbtide stop` does that); `ebbtide submit --resume` or
    `ebbtide resume` goes on from the last checkpoint.
    """
    sweep = read_sweep(path)
    if sweep is not None:
        if sweep.job_id is None:
            fail(f"{path}: found a sweep that was never submitted; nothing to cancel")
        _cancel_jobs([sweep.job_id], timeout_s)
        return
    files = read_files(existing_run_dir(path))
    if files.job_ids:
        _cancel_jobs(files.job_ids, timeout_s)
    else:
        _stop_local(files, timeout_s)


def _cancel_jobs(job_ids: Sequence[str], timeout_s: float) -> None:
    poller = Poller()
    try:
        cancel(job_ids)
    except SlurmError as error:
        fail(str(error), FAILED)
    say(f"job {', '.join(job_ids)}: told to stop")
    time.sleep(FIRST_LOOK_S)
    if not wait_until(lambda: not _live(poller, job_ids), timeout_s, POLL_S):
        states = ", ".join(f"{job_id} is {state}" for job_id, state in poller.states(job_ids).items())
        help_text = poller.error or "look again with squeue, and ask the admins if a node hangs"
        fail(f"found jobs alive after {timeout_s:.0f} s: {states}; wanted ended ones: {help_text}", FAILED)
    say(f"job {', '.join(job_ids)}: ended")


def _live(poller: Poller, job_ids: Sequence[str]) -> bool:
    return any(not state.has_ended for state in poller.states(job_ids).values())


def _stop_local(files: Files, timeout_s: float) -> None:
    """SIGTERM to the process that the ledger names: at a second one it does not save, but ends its children."""
    last = files.history.last
    if not files.alive or last is None:
        where = f" (it began on {last.host})" if last is not None and last.how is None else ""
        fail(f"{files.directory.path}: found nothing that runs here{where}; nothing to cancel")
    os.kill(last.pid, signal.SIGTERM)
    time.sleep(POLL_S)  # two at once would count as one
    with suppress(ProcessLookupError):
        os.kill(last.pid, signal.SIGTERM)
    say(f"process {last.pid}: told to stop")
    if not wait_until(lambda: not read_files(files.directory).alive, timeout_s, POLL_S):
        fail(f"found process {last.pid} alive after {timeout_s:.0f} s; wanted an ended one: use kill -9", FAILED)
    say(f"process {last.pid}: ended")
