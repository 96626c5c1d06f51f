"""A schedule around the run's own: one step of it is traced on every trainer rank, and the run ends with that step.

    sync ─ rollout ─ score ─ update │ step file      the traced step, from its first phase to its last
                                    └─► FOLDER/rank_00000.json.gz, one file per trainer rank

The schedule within turns the loop as ever: it gets parts whose phases and journal tell the tracer where they are.
Left out: engines, which are other processes, and threads beside the rank's own and autograd's. A trace has no shapes
and no stacks, which would multiply its size.
Collective: all trainer ranks call it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from common.files import renamed_when_complete
from core.algorithm.batch import Batch
from core.doors import SCHEDULE
from core.loop.parts import JournalPart, Parts, PhasePart, Schedule, overlaps
from core.run_dir.moment import Moment
from core.run_dir.trace_names import phase_range, rank_trace, step_range
from core.samples import UpdateResult


class Profile:
    """Traces a step of another schedule."""

    def __init__(
        self,
        step: int,
        folder: str,
        traced: str,
        traced_options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what to trace.

        Args:
            step: the step to trace, and to end with.
            folder: where the ranks' traces go; it is there.
            traced: the run's own schedule, as `placement.schedule` names it, with its options.
            settings: the keys of `placement`, which it may ask for.
        """
        self._step = step
        self._folder = Path(folder)
        self._schedule: Schedule = SCHEDULE.build(traced, traced_options, settings)
        self.overlaps = overlaps(self._schedule)
        self.samples = getattr(self._schedule, "samples", True)

    def __call__(self, parts: Parts) -> bool:
        """Turn the loop to the traced step, and no further. Collective: all trainer ranks."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        tracer = Tracer(self._step, self._folder / rank_trace(rank))
        parts.phase = TracedPhases(parts.phase, tracer)
        parts.journal = TracedJournal(parts.journal, tracer)
        parts.num_steps = min(parts.num_steps, self._step + 1)
        return self._schedule(parts)


class Tracer:
    """The trace of one step on this rank: begins with the step's first phase, ends when the step is complete."""

    def __init__(self, step: int, path: Path) -> None:
        self._step = step
        self._path = path
        self._profile: profile | None = None
        self._open = ExitStack()  # the range of the whole step

    def entered(self, name: str, step: int) -> AbstractContextManager[Any]:
        """A range for a phase; the first phase of the step to trace begins the trace."""
        if step == self._step and self._profile is None:
            self._profile = profile(activities=_activities(), acc_events=False)
            self._profile.start()
            self._open.enter_context(record_function(step_range(step)))
        return record_function(phase_range(name))

    def complete(self, step: int) -> None:
        """Write the trace, if this was the step."""
        if step != self._step or self._profile is None:
            return
        self._open.close()
        self._profile.stop()
        with renamed_when_complete(self._path) as unfinished:
            _export(self._profile, unfinished)


class TracedPhases:
    """The run's phases, each in a range of the trace; what is arranged and told around a phase is within."""

    def __init__(self, phases: PhasePart, tracer: Tracer) -> None:
        self._phases = phases
        self._tracer = tracer

    @contextmanager
    def __call__(self, name: str, step: int) -> Iterator[None]:
        """Everything inside the block belongs to phase `name` of `step`. Collective: all trainer ranks."""
        with self._tracer.entered(name, step), self._phases(name, step):
            yield

    @property
    def current(self) -> Moment:
        """The phase that this rank is in, or has left last."""
        return self._phases.current

    def take_times(self) -> dict[str, float]:
        """Seconds per phase since the last call, under their metric names."""
        return self._phases.take_times()


class TracedJournal:
    """The run's journal, which knows when a step is complete. Collective: none."""

    def __init__(self, journal: JournalPart, tracer: Tracer) -> None:
        self._journal = journal
        self._tracer = tracer

    def evaluated(self, step: int, results: dict[str, dict[str, float]]) -> None:
        """Record an evaluation."""
        self._journal.evaluated(step, results)

    def stepped(self, step: int, batch: Batch, result: UpdateResult, times: dict[str, float]) -> None:
        """End the trace, if this is its step, and record the step."""
        self._tracer.complete(step)
        self._journal.stepped(step, batch, result, times)


def _activities() -> list[ProfilerActivity]:
    """The CPU's, and those of a GPU where there is one."""
    return [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]


def _export(done: profile, path: Path) -> None:
    """Write a trace compressed, whatever the name of the file: torch asks the ending."""
    named = path.with_name(f"{path.name}.json.gz")
    try:
        done.export_chrome_trace(str(named))
        named.replace(path)
    finally:
        named.unlink(missing_ok=True)
