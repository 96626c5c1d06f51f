"""Park and unpark a trainer of Qwen3-4B's shape, beside one plain copy of page-locked memory.

Parked: fp32 masters and Adam's moments are copied out, gradients and bf16 parameters dropped; unparked, the parameters
are rounded from the masters again. Between the two lies a pause, as a rollout does in a run. Residual: all device
memory that is used while parked, the CUDA context included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench.gpu_trainer import RandomTrainer, make_samples, make_trainer
from bench.limits import pinned_copy_bandwidth
from bench.record import report
from common.units import GIB
from core.megatron.state.parking import TrainerMemory
from core.residency import TRAINER_PARTS
from core.residency.memory import read_memory

PAUSE_S = 0.5
SHAPE, REPETITIONS, COPY_BYTES, CHUNK = "qwen3-4b", 5, 8 * GIB, 2**26
ALL = frozenset(TRAINER_PARTS)


def checksum(trainer: RandomTrainer) -> int:
    """Checksum of every bit of parameters, masters and moments."""
    memory = trainer.memory
    storages = [s for part in ("parameters", "masters", "moments") for s in memory.regions[part]._storages]
    views = [torch.empty(0, dtype=torch.int32, device="cuda").set_(s, 0, (s.nbytes() // 4,)) for s in storages]
    return sum(int(part.sum()) for view in views for part in view.split(CHUNK))  # a sum is taken in int64


def timed(act: object, *arguments: object) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    act(*arguments)  # type: ignore[operator]
    torch.cuda.synchronize()
    return time.perf_counter() - began


def until_ready(memory: TrainerMemory) -> float:
    """Unpark, without waiting for the moments, which an optimiser step needs only in the end."""
    memory.shrink_to(frozenset())
    torch.cuda.synchronize()
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    memory.grow_to(ALL)
    torch.cuda.current_stream().synchronize()
    seconds = time.perf_counter() - began
    memory.settle()
    torch.cuda.synchronize()
    return seconds


def main() -> None:
    """Measure, print, write results/park.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", nargs="?", default=SHAPE)
    trainer = make_trainer(parser.parse_args().shape, recompute="full")
    reserve_s = timed(trainer.memory.reserve)
    trainer.update(make_samples(8, 64, 448))
    measure(trainer, reserve_s=reserve_s)


def measure(trainer: RandomTrainer, **facts: Any) -> None:
    """Park and unpark a trainer that has made an update, on a GPU of its own."""
    memory = trainer.memory
    before, resident = checksum(trainer), read_memory("cuda").used
    moved = memory.regions["masters"].num_bytes + memory.regions["moments"].num_bytes
    seconds: dict[str, list[float]] = {
        "park": [],
        "unpark": [],
        "unpark until computing may begin": [],
        "keep parameters only": [],
    }
    residual = allocator = 0
    for _ in range(REPETITIONS):
        memory.touched()
        seconds["park"].append(timed(memory.shrink_to, frozenset()))
        parked = read_memory("cuda")
        residual, allocator = max(residual, parked.used), max(allocator, parked.own_reserved)
        time.sleep(PAUSE_S)
        seconds["unpark"].append(timed(memory.grow_to, ALL))
        memory.touched()
        seconds["keep parameters only"].append(timed(memory.shrink_to, frozenset({"parameters"})))
        seconds["unpark until computing may begin"].append(until_ready(memory))
    same = checksum(trainer) == before
    memory.shrink_to(frozenset())
    limit = pinned_copy_bandwidth(COPY_BYTES)
    rate = {name: moved / statistics.median(values) for name, values in seconds.items()}
    report(
        "park",
        seconds,
        ratio_to_pinned_d2h=rate["park"] / limit["d2h"],
        ratio_to_pinned_h2d=rate["unpark"] / limit["h2d"],
        residual_gib=residual / GIB,
        residual_of_allocator_gib=allocator / GIB,
        resident_gib=resident / GIB,
        moved_gib=moved / GIB,
        pinned_d2h_gb_per_s=limit["d2h"] / 1e9,
        pinned_h2d_gb_per_s=limit["h2d"] / 1e9,
        park_gb_per_s=rate["park"] / 1e9,
        unpark_gb_per_s=rate["unpark"] / 1e9,
        **facts,
        bit_identical=same,
        parts_gib={name: region.num_bytes / GIB for name, region in memory.regions.items()},
    )


if __name__ == "__main__":
    main()
