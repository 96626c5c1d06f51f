"""An optimizer state that streams, beside one that is resident and parked: seconds of a step, and memory.

Two trainers of one shape take the same steps one after the other; between two steps everything leaves the GPU, as in a
colocated run. Limit: 12 bytes per parameter one way, while the link carries as much the other way. `--fit` has
another shape make one update with a row of 16,384 tokens on a GPU held to less memory, beside the plan.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import modelcfg
from bench.gpu_trainer import RandomTrainer, make_config, make_samples, make_trainer
from bench.limits import link_both_ways
from bench.model_dir import known_shape
from bench.park import ALL, PAUSE_S, timed
from bench.record import report
from common.units import GIB
from core.planner import Device, plan_memory
from core.planner.changes import apply
from core.residency.memory import read_memory

SHAPE, FIT_SHAPE, STEPS, CHUNK = "qwen3-4b", "qwen3-8b", 6, 2**26
FIT_GIB = 79.1  # of an H100 with 80 GB
SAMPLES, PROMPT, RESPONSE = 4, 512, 3968  # 16,384 tokens: one prompt, four responses


def checksum(trainer: RandomTrainer) -> int:
    """Checksum of every bit of the parameters."""
    storages = trainer.memory.regions["parameters"]._storages
    views = [torch.empty(0, dtype=torch.int32, device="cuda").set_(s, 0, (s.nbytes() // 4,)) for s in storages]
    return sum(int(part.sum()) for view in views for part in view.split(CHUNK))


def steps(shape: str, streamed: bool) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds by what was done, the first step left out, and facts. Gradients are noise, the same for every trainer."""
    trainer = make_trainer(shape, streamed=streamed, recompute="full")
    memory, optimizer = trainer.memory, trainer.policy.optimizer
    memory.reserve()
    beside = memory.held()["parameters"] + memory.held()["gradients"]
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(STEPS):
        memory.touched()
        for buffer in optimizer.model.buffers:
            buffer.grad_data.normal_(0.0, 1e-3, generator=torch.Generator("cuda").manual_seed(number))
        torch.cuda.reset_peak_memory_stats()
        seconds["step"].append(timed(optimizer.step))
        state_bytes = torch.cuda.max_memory_allocated() - beside
        seconds["park"].append(timed(memory.shrink_to, frozenset()))
        time.sleep(PAUSE_S)
        seconds["unpark"].append(timed(memory.grow_to, ALL))
        memory.settle()
    kept = {name: values[1:] for name, values in seconds.items()}
    sums = [sum(parts) for parts in zip(*kept.values(), strict=True)]
    facts = {"state_gib": state_bytes / GIB, "host_gib": memory.host_bytes / GIB, "checksum": checksum(trainer)}
    trainer.close()
    return {**kept, "all three": sums}, facts


def fit(shape: str, limit_gib: float) -> dict[str, Any]:
    """One update with the longest row, on a GPU held to less memory than it has."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gib * GIB / total))
    lengths = {"data.max_prompt_tokens": PROMPT, "rollout.max_response_tokens": RESPONSE}
    config = apply(make_config(SAMPLES, recompute="full"), lengths)
    plan = plan_memory(config, known_shape(shape), Device("cuda", round(limit_gib * GIB)), in_turns=True)
    trainer = make_trainer(shape, num_samples=SAMPLES, streamed=plan.streamed, recompute="full")
    torch.cuda.reset_peak_memory_stats()
    before = read_memory("cuda").used - torch.cuda.memory_reserved()  # context, libraries
    began = time.perf_counter()
    trainer.update(make_samples(SAMPLES, PROMPT, RESPONSE, group_size=SAMPLES))
    seconds = time.perf_counter() - began
    planned = plan.phases["update"]["trainer"]
    return {
        "fit_shape": shape,
        "fit_limit_gib": limit_gib,
        "fit_streamed": plan.streamed,
        "fit_peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "fit_planned_gib": (sum(planned.values()) - planned["process"]) / GIB,
        "fit_beside_gib": before / GIB,
        "fit_host_gib": trainer.memory.host_bytes / GIB,
        "fit_update_s": seconds,
    }


def main() -> None:
    """Measure, print, write results/streamed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", nargs="?", default=SHAPE)
    parser.add_argument("--fit", nargs="?", const=FIT_SHAPE, default=None)
    parser.add_argument("--gib", type=float, default=FIT_GIB)
    arguments = parser.parse_args()
    rate = link_both_ways(2 * GIB)
    numel = modelcfg.num_parameters(known_shape(arguments.shape))
    seconds: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    for name, streamed in (("resident", False), ("streamed", True)):
        found, own = steps(arguments.shape, streamed)
        gc.collect()
        torch.cuda.empty_cache()
        seconds |= {f"{name} {what}": values for what, values in found.items()}
        facts |= {f"{name}_{fact}": value for fact, value in own.items()}
    same = facts.pop("resident_checksum") == facts.pop("streamed_checksum")
    if arguments.fit:
        facts |= fit(arguments.fit, arguments.gib)
    limit = 12 * numel / rate
    report("streamed", seconds, link_gb_per_s=rate / 1e9, limit_s=limit, bit_identical=same, **facts)


if __name__ == "__main__":
    main()
