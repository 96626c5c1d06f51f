"""`ebbtide logs`: what the processes of a run wrote."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from core.run_dir.run_directory import RunDirectory
from hpc.slurm.queue import Poller
from launchers.attempts.history import read_history
from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import RunDir, console, errors, fail
from launchers.show.log_files import ROLES, LogFile, LogsError, Tail, choose, find_logs, latest_attempt
from launchers.show.plain_text import visible
from launchers.show.run_status import status_now

EXAMPLE = "ebbtide logs runs/NAME --role engine --rank 0 --follow"
FOLLOW_INTERVAL_S = 1.0


def command(
    run_dir: RunDir,
    role: Annotated[
        str | None,
        typer.Option(help=f"Whose: {', '.join(ROLES)}. Left out: the first trainer's, once it has one."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Which one; trainers by global rank, the others by node. All if left out.")
    ] = None,
    attempt: Annotated[int | None, typer.Option(help="Which attempt; the newest if left out.")] = None,
    lines: Annotated[int, typer.Option(min=0, help="How many last lines of each log; 0: all.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new lines until the run ends.")] = False,
) -> None:
    """Show the logs of an attempt; what Slurm itself wrote is under the roles task and batch."""
    directory = existing_run_dir(run_dir)
    if role is not None and role not in ROLES:
        fail(f"--role: found {role}; wanted one of {', '.join(ROLES)}")
    number = latest_attempt(directory) if attempt is None else attempt
    _check_attempt(directory, number)
    view = View(directory, role, rank, lines or None)
    view.show(number, required=not follow)
    if follow:
        _follow(view, number, moves_on=attempt is None)


class View:
    """The logs that were asked for, with what has been shown of each."""

    def __init__(self, directory: RunDirectory, role: str | None, rank: int | None, lines: int | None) -> None:
        self.directory = directory
        self._asked = (role, rank)
        self._lines = lines
        self._tails: dict[LogFile, Tail] = {}
        self._shown: LogFile | None = None

    def show(self, attempt: int, *, required: bool, last: bool = False) -> None:
        """Print what is new. `required`: end the command if there is no such log."""
        attempts = read_history(self.directory).attempts
        try:
            chosen = choose(find_logs(self.directory, attempts, attempt), *self._asked)
        except LogsError as error:
            if required:
                fail(str(error))
            return
        for log in chosen:
            self._print(log, len(chosen) > 1, last=last)

    def _print(self, log: LogFile, headed: bool, *, last: bool) -> None:
        tail = self._tails.setdefault(log, Tail(log.path, self._lines))
        for line in tail.new_lines(last=last):
            if log != self._shown:
                if headed or self._shown is not None:
                    errors.print(f"==> {log.path} <==", highlight=False, markup=False, soft_wrap=True)
                self._shown = log
            sys.stdout.write((visible(line) if console.is_terminal else line) + "\n")
        sys.stdout.flush()


def _follow(view: View, number: int, *, moves_on: bool) -> None:
    """Show lines until the attempt, or with `moves_on` the run, has ended; Ctrl-C ends it, and the run goes on."""
    poller = Poller()
    try:
        while _goes_on(view.directory, number, poller, moves_on=moves_on):
            time.sleep(FOLLOW_INTERVAL_S)
            number = latest_attempt(view.directory) if moves_on else number
            view.show(number, required=False)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    view.show(number, required=True, last=True)


def _goes_on(directory: RunDirectory, number: int, poller: Poller, *, moves_on: bool) -> bool:
    status = status_now(directory, poller)
    ended = any(attempt.number == number and attempt.how is not None for attempt in status.history.attempts)
    return status.live and (moves_on or not ended)


def _check_attempt(directory: RunDirectory, number: int) -> None:
    if number and not directory.attempt(number).is_dir():
        latest = latest_attempt(directory)
        fail(
            f"--attempt: found {number}; wanted {f'one of 1 to {latest}' if latest else 'nothing: none has begun yet'}"
        )
