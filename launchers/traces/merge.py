"""The traces of all trainer ranks as one, for Perfetto and Chrome: a process for each rank and each GPU. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.run_dir.trace_names import is_ours
from launchers.traces.rank_trace import ON_GPU, Event, RankTrace

PIDS_PER_RANK = 1000  # more than a rank has devices
FLOW = ("s", "t", "f")  # arrows: from a launch to its kernel, from forward to backward


@dataclass(frozen=True)
class Cut:
    """What of a rank's trace was left out, because there was too much of it.

    Attributes:
        shorter_us: nothing that took longer was.
    """

    rank: int
    kept: int
    found: int
    shorter_us: float


def merge(traces: Sequence[RankTrace], most_events: int) -> tuple[dict[str, Any], list[Cut]]:
    """One trace, whose zero is the earliest begin of the step, and what was left out of it.

    Args:
        most_events: with a duration, of all ranks together; each rank's longest are kept, and our own ranges. Arrows go
            where anything does.
    """
    zero = min(trace.base_us + trace.step.begin for trace in traces)
    events: list[dict[str, Any]] = []
    cuts = []
    for trace in traces:
        kept, cut = _kept(trace, most_events // len(traces))
        cuts += [cut] if cut else []
        events += _renamed(trace, kept, zero, arrows=cut is None)
    return {"displayTimeUnit": "ms", "traceEvents": events}, cuts


def _kept(trace: RankTrace, most: int) -> tuple[list[Event], Cut | None]:
    """The spans that stay."""
    spans = trace.spans
    if len(spans) <= most:
        return spans, None
    ours = [span for span in spans if is_ours(span["name"])]
    others = (span for span in spans if not is_ours(span["name"]))
    longest = heapq.nlargest(max(most - len(ours), 0), others, key=lambda span: span["dur"])
    shortest = longest[-1]["dur"] if longest else float("inf")
    return [*ours, *longest], Cut(trace.rank, len(ours) + len(longest), len(spans), shortest)


def _renamed(trace: RankTrace, kept: Sequence[Event], zero: float, *, arrows: bool) -> Iterator[dict[str, Any]]:
    """Events under process numbers that no other rank has, with names for the processes and threads."""
    devices = sorted({span["pid"] for span in kept if span["cat"] in ON_GPU}, key=str)
    hosts = {span["pid"] for span in kept if span["cat"] not in ON_GPU}
    first = trace.rank * PIDS_PER_RANK
    pids = {**dict.fromkeys(hosts, first), **{device: first + 1 + i for i, device in enumerate(devices)}}
    yield from _titles(first, f"trainer {trace.rank}")
    for device in devices:
        yield from _titles(pids[device], f"trainer {trace.rank}, GPU {device}")
    flows = [event for event in trace.events if event.get("ph") in FLOW] if arrows else []
    for event in (*kept, *flows):
        if event["pid"] in pids:
            moved = {**event, "pid": pids[event["pid"]], "ts": round(trace.base_us - zero + event["ts"], 3)}
            yield {**moved, "id": f"{trace.rank}.{event['id']}"} if "id" in event else moved
    seen = set()
    for event in trace.events:
        if event.get("name") == "thread_name" and event["pid"] in pids and (event["pid"], event["tid"]) not in seen:
            seen.add((event["pid"], event["tid"]))
            yield {**event, "pid": pids[event["pid"]], "ts": 0}


def _titles(pid: int, name: str) -> Iterator[dict[str, Any]]:
    """The name of a process, and its place among the others."""
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
