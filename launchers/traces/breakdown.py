"""What a rank's trace says of its time: each phase's length, operators and GPU. Pure; microseconds throughout."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from core.run_dir.trace_names import bucket_bytes
from launchers.traces.rank_trace import ON_GPU, Event, Range, RankTrace

BETWEEN = "between phases"
NO_LAUNCH = "(launched by no operator)"


@dataclass
class PhaseTime:
    """One phase of one rank; phases of the same name count together.

    Attributes:
        operators: own microseconds of each on the CPU, those of operators within it left out.
        gpu_operators: microseconds of the kernels that each launched.
        gpu_busy_us: in which at least one kernel or copy of this rank was running; None: the trace has no GPU.
        moved_bytes: weights sent to engines.
    """

    name: str
    length_us: float = 0.0
    operators: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gpu_operators: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gpu_busy_us: float | None = None
    moved_bytes: int = 0


def breakdown(trace: RankTrace) -> list[PhaseTime]:
    """The phases of a step, in order, and what lies between them: lengths add up to the step's."""
    times: dict[str, PhaseTime] = {}
    for phase in trace.phases:
        times.setdefault(phase.name, PhaseTime(phase.name)).length_us += phase.length
    between = PhaseTime(BETWEEN, trace.step.length - sum(one.length_us for one in times.values()))
    starts = [phase.begin for phase in trace.phases]

    def at(event: Event) -> PhaseTime:
        """The phase in which something began."""
        place = bisect_right(starts, event["ts"]) - 1
        inside = place >= 0 and event["ts"] < trace.phases[place].end
        return times[trace.phases[place].name] if inside else between

    for event, own_us in self_times(span for span in trace.spans if span["cat"] == "cpu_op"):
        at(event).operators[event["name"]] += own_us
    for event in trace.spans:
        at(event).moved_bytes += bucket_bytes(event["name"])
    _add_gpu(trace, times, at)
    return [*times.values(), between]


def self_times(operators: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Each operator with its own time: without that of the operators within it, on the same thread."""
    threads: dict[object, list[Event]] = defaultdict(list)
    for operator in operators:
        threads[operator["pid"], operator["tid"]].append(operator)
    for thread in threads.values():
        yield from _of_thread(sorted(thread, key=lambda one: (one["ts"], -one["dur"])))


def _of_thread(operators: Sequence[Event]) -> Iterator[tuple[Event, float]]:
    open_ones: list[tuple[Event, list[float]]] = []  # with the durations of those directly within
    for operator in operators:
        while open_ones and operator["ts"] >= open_ones[-1][0]["ts"] + open_ones[-1][0]["dur"]:
            yield _closed(*open_ones.pop())
        if open_ones:
            open_ones[-1][1].append(operator["dur"])
        open_ones.append((operator, []))
    while open_ones:
        yield _closed(*open_ones.pop())


def _closed(operator: Event, within: Sequence[float]) -> tuple[Event, float]:
    return operator, max(operator["dur"] - sum(within), 0.0)


def _add_gpu(trace: RankTrace, times: dict[str, PhaseTime], at: Callable[[Event], PhaseTime]) -> None:
    """Kernels and copies: to the phase in which they began, under the operator that launched them."""
    work = [span for span in trace.spans if span["cat"] in ON_GPU]
    if not work:
        return
    launched = {_launch(span): span["name"] for span in trace.spans if span["cat"] == "cpu_op"}
    launched[None] = NO_LAUNCH
    for span in work:
        at(span).gpu_operators[launched.get(_launch(span), NO_LAUNCH)] += span["dur"]
    busy = united((span["ts"], span["ts"] + span["dur"]) for span in work)
    for phase in trace.phases:
        times[phase.name].gpu_busy_us = (times[phase.name].gpu_busy_us or 0.0) + _overlap(busy, phase)


def _launch(span: Event) -> object:
    """The number that an operator shares with what it has launched; None: there is none."""
    return span.get("args", {}).get("External id")


def united(ranges: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time as ranges that do not touch, in order."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def _overlap(ranges: Sequence[tuple[float, float]], phase: Range) -> float:
    return sum(max(min(end, phase.end) - max(begin, phase.begin), 0.0) for begin, end in ranges)
