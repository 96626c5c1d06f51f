"""How full the GPUs of this machine were, phase by phase of a run: asked of the driver while the run goes on."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from common.units import MIB

QUESTION = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
EVERY_S = 0.25


class Reading(NamedTuple):
    """Bytes in use on each GPU at a time, in seconds since the epoch."""

    time: float
    used: tuple[int, ...]


def ask() -> list[tuple[int, int]]:
    """Bytes in use, and in all, of each GPU; none without a driver."""
    try:
        done = subprocess.run(QUESTION, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in done.stdout.strip().splitlines()]
    return [(int(used) * MIB, int(total) * MIB) for used, total in rows]


class Watch:
    """Readings from now on, in a thread, until it is left."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _read(self) -> None:
        while not self._over.wait(EVERY_S):
            if found := ask():
                self.readings.append(Reading(time.time(), tuple(used for used, _ in found)))


def peaks(
    readings: Iterable[Reading], entered: Sequence[Mapping[str, Any]], beside: Sequence[int] = ()
) -> dict[str, int]:
    """Phase -> most bytes in use on any GPU while the run was in it.

    Args:
        entered: events of phases, in their order: `phase`, and the `time` at which it began.
        beside: bytes of each GPU that were in use before the run.
    """
    found: dict[str, int] = {}
    for reading in readings:
        begun = [event["phase"] for event in entered if event["time"] <= reading.time]
        if begun:
            used = max(now - (beside[gpu] if gpu < len(beside) else 0) for gpu, now in enumerate(reading.used))
            found[begun[-1]] = max(used, found.get(begun[-1], 0))
    return found
