"""A run in the foreground of a terminal: a child does the work, progress is shown, Ctrl-C saves and ends it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from common.waiting import wait_until
from core.processes.children import KILL_DEADLINE_S, Child, kill_descendants
from core.run_dir.progress import ProgressReader
from launchers.attempts.exit_codes import INTERRUPTED
from launchers.attempts.stop_request import ask_to_stop
from launchers.show.display import Display

SAVE_DEADLINE_S = 600.0
STOP_DEADLINE_S = 30.0
POLL_S = 0.1


def follow(
    child: Child, reader: ProgressReader, display: Display, attempt: Path, pending: list[int] | None = None
) -> int:
    """Show events until the child ends. At Ctrl-C or SIGTERM it is to save and end; at a second one it ends at once.

    Args:
        attempt: the folder of the attempt that the child leads.
        pending: the signals that `interrupts` collects, if the caller has begun that; some may have come before.
    Returns:
        the child's exit code; 130 if it was stopped.
    """

    def show() -> None:
        display.show(reader.new_events())

    with interrupts() if pending is None else nullcontext(pending) as pending:
        with display:
            code = _watch(child, show, lambda: bool(pending))
            if interrupted := code is None:
                code = _stop(child, show, display, attempt, lambda: len(pending) > 1)
            show()
        kill_descendants()
    return INTERRUPTED if interrupted else code


def _watch(child: Child, show: Callable[[], None], until: Callable[[], bool]) -> int | None:
    """Exit code of the child; None: `until` came first."""
    while (code := child.exit_code()) is None and not until():
        show()
        time.sleep(POLL_S)
    return code


def _stop(child: Child, show: Callable[[], None], display: Display, attempt: Path, at_once: Callable[[], bool]) -> int:
    """Exit code of the child, which is given time to save, and is told to end when that is over."""
    if ask_to_stop(attempt):
        minutes = SAVE_DEADLINE_S / 60
        display.note(f"stopping: saves first, for {minutes:.0f} min at most; Ctrl-C again: at once")
        ends = time.monotonic() + SAVE_DEADLINE_S
        code = _watch(child, show, lambda: at_once() or time.monotonic() > ends)
        if code is not None:
            return code
        display.note("leaving at once" if at_once() else f"not saved within {minutes:.0f} min: leaving")
    child.signal(signal.SIGTERM)
    return _wait(child, STOP_DEADLINE_S)


def _wait(child: Child, deadline_s: float) -> int:
    """Exit code of the child, once it has ended; after the deadline it is killed."""
    if not wait_until(lambda: child.exit_code() is not None, deadline_s, POLL_S):
        child.signal(signal.SIGKILL)
    return child.wait(KILL_DEADLINE_S)


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them."""
    pending: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _frame: pending.append(number))
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
