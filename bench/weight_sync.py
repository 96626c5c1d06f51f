"""Weight sync from Megatron's own parameters into a colocated engine, conversion included.

Beside it a copy of the same bytes within the GPU (the physical limit), and the naive path: one request per tensor. The
check afterwards: the engine's log-probs of random tokens against the trainer's own, before and after the sync.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench.colocated import Colocated, colocated, timed
from bench.limits import device_copy_bandwidth
from bench.model_dir import known_shape
from bench.record import report
from core.samples import TrainSample
from modelcfg import num_parameters
from tests.support.engine_updates import updating

REPETITIONS = 5
PROBE_TOKENS = 96


def naive(both: Colocated) -> None:
    """One request for each tensor."""
    with updating(both.engine.client, "naive") as update:
        for bucket in both.trainer.named_buckets(1):
            update.send(bucket)


def push(both: Colocated, version: str) -> None:
    """One sync, although the engine may have this version."""
    both.engine.weight_version = None
    both.sync.push(version)


def logprob_gap(both: Colocated) -> float:
    """Mean |engine - trainer| log-prob over random tokens, both under their present weights."""
    generator = torch.Generator().manual_seed(3)
    vocab = min(40000, both.trainer.shape.vocab_size)
    tokens = torch.randint(10, vocab, (PROBE_TOKENS,), generator=generator).tolist()
    both.residency.enter("rollout")
    engine = both.engine.client.score(tokens)
    both.residency.enter("update")
    sample = TrainSample(0, tokens[:1], tokens[1:], [1] * len(tokens[1:]), 1.0, [0.0] * len(tokens[1:]))
    (trainer,) = both.trainer.log_probs([sample])
    return sum(abs(a - b) for a, b in zip(engine, trainer, strict=True)) / len(trainer)


def measure(both: Colocated, shape: str) -> dict[str, Any]:
    """Everything about one shape."""
    before = logprob_gap(both)
    both.residency.enter("sync")
    seconds = [timed(push, both, f"v{number}") for number in range(REPETITIONS)]
    naive_s = timed(naive, both)
    push(both, "last")
    num_bytes = 2 * num_parameters(known_shape(shape))
    gap = logprob_gap(both)
    both.residency.enter("sync")
    push(both, "last")
    both.residency.enter("rollout")  # leaves room for the two buffers
    copy_s = num_bytes / device_copy_bandwidth(min(num_bytes, 4 * 2**30))
    steady = statistics.median(seconds[1:])
    return {
        "shape": shape,
        "bytes": num_bytes,
        "seconds": steady,
        "all_seconds": seconds,
        "naive_s": naive_s,
        "device_copy_s": copy_s,
        "ratio_to_naive": naive_s / steady,
        "ratio_to_device_copy": steady / copy_s,
        "logprob_gap_before": before,
        "logprob_gap": gap,
        "engine_start_s": both.engine_start_s,
    }


def write(results: list[dict[str, Any]]) -> None:
    """Print, write results/weight_sync.json: the fixed keys are those of the largest shape."""
    largest = max(results, key=lambda result: result["bytes"])
    seconds = {f"{r['shape']} sync": r["all_seconds"] for r in results} | {
        f"{r['shape']} naive": [r["naive_s"]] for r in results
    }
    fixed = {key: largest[key] for key in ("seconds", "bytes", "ratio_to_device_copy", "ratio_to_naive", "logprob_gap")}
    report("weight_sync", seconds, **fixed, shapes=results)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=["smollm2-135m"])
    options = parser.parse_args()
    results = []
    for shape in options.shapes:
        with colocated(shape, engine_fraction=0.3, num_samples=16, recompute="full") as both:
            results.append(measure(both, shape))
        both.trainer.close()  # the next one makes process groups of its own
    write(results)


if __name__ == "__main__":
    main()
