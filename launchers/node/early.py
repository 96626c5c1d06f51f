"""Signals that reach a process before it can act on them, from its first line on. Standard library only.

nothing begun   SIGTERM, SIGINT end the process at once; SIGUSR2, the cluster's warning, is noted
begun           all are noted, and the node agent begins with them
"""

from __future__ import annotations

import os
import signal
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
WARNING = signal.SIGUSR2

_noted: list[int] = []


def leave_at_once() -> None:
    """Call it first of all: what ends this process ends it on the spot, as nothing is there to be put in order."""
    for number in ENDING:
        signal.signal(number, _leave)
    signal.signal(WARNING, _note)


def note() -> None:
    """Something begins that is to be ended in order: signals wait until somebody takes them."""
    for number in (*ENDING, WARNING):
        signal.signal(number, _note)


def take() -> tuple[int, ...]:
    """The signals that came so far, the first one first; they are taken once."""
    taken = tuple(_noted)
    del _noted[: len(taken)]
    return taken


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    _noted.append(number)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    os.write(2, f"ended by {signal.Signals(number).name} before anything had begun\n".encode())
    os._exit(128 + number)
