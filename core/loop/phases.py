"""One context manager that times, logs and announces the phases of a step. Nobody times by hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from core.processes.device import peak_rss_gib
from core.run_dir.moment import Moment

STEP_PHASES = ("sync", "rollout", "score", "update")
PHASES = (*STEP_PHASES, "eval", "save")
METRIC_NAMES = {"sync": "perf/update_weights_time", "update": "perf/train_time"}  # the field's names; others by rule

log = logging.getLogger(__name__)


class AroundPhase(Protocol):
    """What a phase needs arranged around it: GPU memory (`core.residency.machine.Residency`)."""

    def inside(self, phase: str, step: int) -> AbstractContextManager[None]:
        """Entered when the phase begins, left when it ends."""
        ...

    def take_seconds(self) -> float:
        """Seconds it took since the last call."""
        ...


class Phases:
    """The phases of this rank: which one it is in, and how long each took in the current step."""

    def __init__(
        self, announce: Callable[[Moment], None], around: AroundPhase | None = None, quiet: bool = False
    ) -> None:
        """Keep whom to tell of a phase and what to enter around it.

        Args:
        announce: called whenever a phase begins.
        around: entered around each phase, within its time; None: nothing has to be arranged, on a CPU that holds
            everything at once.
        quiet: log nothing (all ranks but the first).
        """
        self._announce = announce
        self._level = logging.DEBUG if quiet else logging.INFO
        self._seconds: dict[str, float] = {}
        self._around = around
        self.current = Moment()

    @contextmanager
    def __call__(self, name: str, step: int) -> Iterator[None]:
        """Everything inside the block belongs to phase `name` of `step`."""
        if name not in PHASES:
            raise ValueError(f"phase {name!r}: wanted one of {', '.join(PHASES)}")
        self.current = Moment(name, step)
        self._announce(self.current)
        began = time.monotonic()
        with self._around.inside(name, step) if self._around else nullcontext():
            yield
        seconds = time.monotonic() - began
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        log.log(self._level, "phase=%s step=%d seconds=%.3f peak_rss_gib=%.2f", name, step, seconds, peak_rss_gib())
        self.current = Moment(f"after {name}", step)

    def take_times(self) -> dict[str, float]:
        """Seconds per phase since the last call, under their metric names; `perf/step_time` is the sum of the step's
        own phases, without evaluation and checkpoint.
        """
        times = {METRIC_NAMES.get(name, f"perf/{name}_time"): seconds for name, seconds in self._seconds.items()}
        times["perf/step_time"] = sum(self._seconds.get(name, 0.0) for name in STEP_PHASES)
        if self._around:
            times["perf/switch_time"] = self._around.take_seconds()  # within the phases' times
        self._seconds = {}
        return times
