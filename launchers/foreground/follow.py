"""A run in the foreground of a terminal: a child does the work, progress is shown, Ctrl-C stops it in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common.waiting import wait_until
from core.processes.children import KILL_DEADLINE_S, Child, kill_descendants
from core.run_dir.progress import ProgressReader
from launchers.attempts.exit_codes import INTERRUPTED
from launchers.show.display import Display

STOP_DEADLINE_S = 30.0
POLL_S = 0.1


def follow(child: Child, reader: ProgressReader, display: Display) -> int:
    """Show events until the child ends; Ctrl-C and SIGTERM stop it.

    Returns:
        the child's exit code; 130 if it was stopped.
    """
    interrupted = False
    with _interrupts() as pending:
        with display:
            while (code := child.exit_code()) is None and not pending:
                display.show(reader.new_events())
                time.sleep(POLL_S)
            if code is None:
                interrupted = True
                child.signal(signal.SIGTERM)
                code = _wait(child, STOP_DEADLINE_S)
            display.show(reader.new_events())
        kill_descendants()
    return INTERRUPTED if interrupted else code


def _wait(child: Child, deadline_s: float) -> int:
    """Exit code of the child, once it has ended; after the deadline it is killed."""
    if not wait_until(lambda: child.exit_code() is not None, deadline_s, POLL_S):
        child.signal(signal.SIGKILL)
    return child.wait(KILL_DEADLINE_S)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
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
