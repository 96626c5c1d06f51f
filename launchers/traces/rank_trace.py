"""The trace of one trainer rank, as torch's profiler writes it: Chrome's trace events, in microseconds.

    pid     the rank's process; GPU: the number of the device
    ts      begin, from the trace's own zero (`baseTimeNanoseconds` of the epoch); read: from the epoch
    dur     duration
    cat     cpu_op, user_annotation (our ranges are among these), kernel, gpu_memcpy, …
Source: Trace Event Format, Google 2016; the categories are Kineto's.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from core.run_dir.trace_names import PHASE, STEP

ON_GPU = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
ON_CPU = frozenset({"cpu_op", "user_annotation", "cuda_runtime", "cuda_driver"})
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Range:
    """A span of time, in microseconds of the trace's clock."""

    name: str
    begin: float
    end: float

    @property
    def length(self) -> float:
        """Microseconds."""
        return self.end - self.begin


@dataclass(frozen=True)
class RankTrace:
    """What one rank did in the step.

    Attributes:
        base_us: the zero of `ts`, in whole microseconds of the epoch; clocks of different nodes differ by what their
            system clocks do.
    """

    rank: int
    events: list[Event] = field(repr=False)
    base_us: int = 0

    @cached_property
    def spans(self) -> list[Event]:
        """All events with a duration."""
        return [event for event in self.events if event.get("ph") == "X" and event.get("cat") in ON_GPU | ON_CPU]

    @cached_property
    def phases(self) -> list[Range]:
        """The step's phases, in order."""
        return self._ranges(PHASE)

    @cached_property
    def step(self) -> Range:
        """The whole step.

        Raises:
            Wrong: the trace has none.
        """
        found = self._ranges(STEP)
        if len(found) != 1:
            wanted = "one: that of the traced step"
            raise Wrong(f"{len(found)} steps in the trace of trainer rank {self.rank}", wanted, "trace it once more")
        return found[0]

    def _ranges(self, prefix: str) -> list[Range]:
        found = [
            Range(event["name"].removeprefix(prefix), event["ts"], event["ts"] + event["dur"])
            for event in self.spans
            if event["cat"] == "user_annotation" and event["name"].startswith(prefix)
        ]
        return sorted(found, key=lambda one: one.begin)


def read_rank_trace(path: Path, rank: int) -> RankTrace:
    """Read the file that a rank has written.

    Raises:
        Wrong: there is none, or it is cut off.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            found = json.load(file)
        return RankTrace(rank, found["traceEvents"], int(found.get("baseTimeNanoseconds", 0)) // 1000)
    except (FileNotFoundError, EOFError, zlib.error, ValueError, KeyError) as error:
        wanted = f"the trace of trainer rank {rank}"
        remedy = "its log in attempts/latest/ says why there is none; a run that was paused has not come to the step"
        raise Wrong(f"{path}: {type(error).__name__}", wanted, remedy) from error
