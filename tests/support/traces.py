"""Traces of a step made by hand, as torch's profiler writes them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from launchers.traces.rank_trace import RankTrace

PID, THREAD, BACKWARD = 4711, 1, 2


def span(cat: str, name: str, ts: float, dur: float, tid: int = THREAD, pid: int = PID, **args: Any) -> dict[str, Any]:
    """An event with a duration."""
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def events(start: float = 1000.0, *, gpu: bool = False) -> list[dict[str, Any]]:
    """A step of 100 µs: sync 10, rollout 30, 5 between, update 50, 5 between."""
    host = [
        {"ph": "M", "name": "thread_name", "pid": PID, "tid": THREAD, "ts": start, "args": {"name": "main"}},
        {"ph": "M", "name": "process_name", "pid": PID, "tid": 0, "ts": start, "args": {"name": "python"}},
        span("user_annotation", "step 3", start, 100),
        span("user_annotation", "phase sync", start, 10),
        span("user_annotation", "bucket of 4000 bytes", start + 1, 2),
        span("user_annotation", "bucket of 500 bytes", start + 4, 2),
        span("user_annotation", "phase rollout", start + 10, 30),
        span("user_annotation", "phase update", start + 45, 50),
        span("cpu_op", "aten::linear", start + 50, 20, **{"External id": 7}),
        span("cpu_op", "aten::mm", start + 55, 8, **{"External id": 8}),
        span("cpu_op", "aten::t", start + 51, 1),
        span("cpu_op", "aten::mm", start + 60, 12, BACKWARD),
        span("cpu_op", "aten::stack", start + 41, 2),
        {"ph": "s", "id": 1, "pid": PID, "tid": THREAD, "ts": start + 55, "cat": "fwdbwd", "name": "fwdbwd"},
        {"ph": "f", "id": 1, "pid": PID, "tid": BACKWARD, "ts": start + 60, "cat": "fwdbwd", "name": "fwdbwd"},
        {"ph": "X", "cat": "Trace", "name": "profiler", "pid": "Spans", "tid": "x", "ts": start, "dur": 100},
    ]
    device = [
        span("kernel", "gemm", start + 60, 10, 7, pid=0, **{"External id": 8}),
        span("kernel", "gemm", start + 65, 10, 8, pid=0, **{"External id": 8}),
        span("gpu_memcpy", "copy", start + 90, 10, 7, pid=0),
        span("gpu_user_annotation", "phase update", start + 60, 40, 7, pid=0),
    ]
    return [*host, *device] if gpu else host


def rank_of(rank: int = 0, start: float = 1000.0, base_us: int = 0, *, gpu: bool = False) -> RankTrace:
    """The trace of a rank."""
    return RankTrace(rank, events(start, gpu=gpu), base_us)


def write_trace(path: Path, base_ns: int = 5_000_000) -> Path:
    """The file of a rank."""
    with gzip.open(path, "wt") as file:
        json.dump({"baseTimeNanoseconds": base_ns, "traceEvents": events()}, file)
    return path
