"""Physical limits of this GPU, measured: what a benchmark puts beside its own figure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core.residency.host_memory import host_buffer


def seconds_of(act: Callable[[], object], repetitions: int = 5) -> float:
    """Median wall-clock seconds of something on the GPU, after one warm-up."""
    measured = []
    for repetition in range(repetitions + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        act()
        torch.cuda.synchronize()
        if repetition:
            measured.append(time.perf_counter() - began)
    return statistics.median(measured)


def kernels_of(act: Callable[[], object]) -> list[Any]:
    """torch's profiler events of the kernels that something starts, those that took the most time first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        act()
    events = [e for e in trace.key_averages() if e.self_device_time_total > 0 and e.device_type.name == "CUDA"]
    return sorted(events, key=lambda e: -e.self_device_time_total)


def pinned_copy_bandwidth(num_bytes: int) -> dict[str, float]:
    """Bytes per second of one large copy between page-locked host memory and the GPU, each way."""
    device, host = torch.empty(num_bytes, dtype=torch.uint8, device="cuda"), host_buffer(num_bytes, pinned=True)
    device.random_()

    def copy(target: Tensor, source: Tensor) -> Callable[[], object]:
        return lambda: target.copy_(source, non_blocking=True)

    return {"d2h": num_bytes / seconds_of(copy(host, device)), "h2d": num_bytes / seconds_of(copy(device, host))}


def link_both_ways(num_bytes: int) -> float:
    """Bytes per second in each direction while page-locked host memory is copied both ways at once."""
    ways = []
    for to_device in (True, False):
        device, host = torch.empty(num_bytes, dtype=torch.uint8, device="cuda"), host_buffer(num_bytes, pinned=True)
        ways.append((torch.cuda.Stream(), *((device, host) if to_device else (host, device))))  # type: ignore[no-untyped-call]

    def copy() -> None:
        for stream, target, source in ways:
            with torch.cuda.stream(stream):
                target.copy_(source, non_blocking=True)

    return num_bytes / seconds_of(copy)


def device_copy_bandwidth(num_bytes: int) -> float:
    """Bytes per second of a copy within the GPU, the bytes counted once."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return num_bytes / seconds_of(lambda: target.copy_(source))


def matmul_flops(size: int = 8192) -> float:
    """Floating-point operations per second of a large bf16 matrix product on random data."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, 10)
