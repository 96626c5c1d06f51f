"""A time limit for one call of a user's code, in the process and the event loop of many.

A plain function is interrupted by an alarm, wherever it stands; what is awaited is cancelled. Code of C that never
looks for signals goes on: then the deadline of the whole task ends its process (`core.rollout.worker_process`).
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

AGAIN_S = 1.0  # between alarms, for code that catches everything


class TimeIsUp(BaseException):
    """Raised in the middle of a plain function; no Exception, so that few catch it."""


class OutOfTime(Exception):
    """A call that was cut off. The traceback of its cause shows where."""


async def limited(function: Callable[..., Any], timeout_s: float, *arguments: Any, **named: Any) -> Any:
    """What the function gives, awaited if it is to be awaited.

    Raises:
        OutOfTime: it took longer. Only by the main thread.
    """
    try:
        with _alarm(timeout_s):
            made = function(*arguments, **named)
    except TimeIsUp as error:
        raise OutOfTime from error
    if not inspect.isawaitable(made):
        return made
    try:
        async with asyncio.timeout(timeout_s) as scope:
            return await made
    except TimeoutError as error:
        if scope.expired():
            raise OutOfTime from error.__cause__
        raise


@contextmanager
def _alarm(timeout_s: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, timeout_s, AGAIN_S)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # again, for an alarm between the lines above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
