"""One attempt on this machine: the node agent as a child, and what the terminal shows meanwhile."""

from __future__ import annotations

import os
import socket
import sys

from core.processes.children import Child
from core.processes.die_with_parent import adopt_orphans
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.attempt import OpenAttempt, open_attempt
from launchers.attempts.exit_codes import FAILED, INTERRUPTED
from launchers.attempts.failure import read_record
from launchers.attempts.outcome import Outcome, read_outcome
from launchers.foreground.follow import follow, interrupts
from launchers.show.display import Display
from launchers.show.saved import saved_text

EXIT_CODES = {"complete": 0, "timeout": 0, "preempted": 0, "interrupted": INTERRUPTED}


def run_attempt(directory: RunDirectory, display: Display) -> int:
    """Run the next attempt in the foreground.

    Returns:
        the exit code: 0 complete or paused, 1 failed (the failure is shown), 130 interrupted.
    Raises:
        RunBusy: if another process runs an attempt in this directory.
    """
    # from here on there is something to end in order: a Ctrl-C while it begins counts as well
    with interrupts() as pending, open_attempt(directory, [socket.gethostname()]) as attempt:
        reader = ProgressReader(directory.progress, from_end=True)
        code = follow(_start_agent(attempt), reader, display, attempt.folder, pending)
        outcome = read_outcome(attempt.folder) or _without_record(code)
        code = EXIT_CODES.get(outcome.how, FAILED)
        attempt.end(outcome, code)
    show_end(outcome, attempt, display)
    return code


def _without_record(code: int) -> Outcome:
    """How an attempt ended whose agent was killed before it could say."""
    if code == INTERRUPTED:
        return Outcome("interrupted", cause="stopped at the terminal")
    return Outcome("failed", cause="the node agent died without a record")


def show_end(outcome: Outcome, attempt: OpenAttempt, display: Display) -> None:
    """What the user should know of an attempt that did not complete the run."""
    if outcome.how in ("interrupted", "timeout", "preempted"):
        display.interrupted(attempt.directory.path, saved_text(attempt.directory))
    elif outcome.how != "complete":
        display.failed(read_record(attempt.folder), attempt.directory.path, attempt.folder)


def _start_agent(attempt: OpenAttempt) -> Child:
    adopt_orphans()
    run_dir, number = str(attempt.directory.path), str(attempt.number)
    command = [sys.executable, "-m", "launchers.node.local_agent", "--run-dir", run_dir, "--attempt", number]
    return Child("agent", command, os.environ, AttemptFolder(attempt.folder).agent_log(0))
