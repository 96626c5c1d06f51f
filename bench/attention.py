"""A layer's attention as context-parallel ranks compute it, forward and backward: cuDNN in two parts, FlashAttention.

    python bench/attention.py                                # 65,536 tokens of Qwen3-4B's shape over two and four ranks

One GPU computes the ranks one after the other; their keys are all there, as if gathered, so no communication counts.
The first rank has the two ends of the row, the last its middle. Beside them the whole row as one rank computes it.
TFLOP/s are of what the row needs, causal: half a square forward, two and a half times that backward. Writes
results/attention.json; ends with 1 if the kernels' outputs and gradients are apart by more than bfloat16 rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from bench.gpu_trainer import make_samples
from bench.model_dir import known_shape
from bench.record import report
from core.megatron.attention import on_gpu
from core.megatron.attention.blocks import Queries
from core.megatron.attention.plan import AttentionPlan
from core.megatron.rows.packing import Row, pack
from core.megatron.rows.split import split_row
from modelcfg import ModelShape

REPETITIONS = 5
MAX_APART = 1e-2  # norm of the difference over the norm
NAMES = ("output", "queries", "keys", "values")


def plans(row: Row, ranks: int) -> list[AttentionPlan]:
    """The ranks' attention; of one rank that of the row."""
    if ranks == 1:
        return [AttentionPlan(row.segments, "cuda")]
    parts = [split_row(row, rank, ranks) for rank in range(ranks)]
    return [AttentionPlan(part.pieces, "cuda", part.num_keys) for part in parts]


def flops(shape: ModelShape, segments: Sequence[Queries]) -> tuple[float, float]:
    """Needed by a layer, forward and backward."""
    pairs = sum(one.length * (one.prefix_length + one.length / 2) for one in segments)
    forward = 4 * shape.query_size * pairs
    return forward, 2.5 * forward


def tensors(shape: ModelShape, queries: int, keys: int) -> list[Tensor]:
    """Random queries, keys, values, and what comes back."""
    torch.manual_seed(0)
    heads, groups = shape.num_attention_heads, shape.num_query_groups
    sizes = (queries, heads), (keys, groups), (keys, groups), (queries, heads)
    return [torch.randn(*size, shape.head_dim, device="cuda", dtype=torch.bfloat16) for size in sizes]


def passed(plan: AttentionPlan, made: list[Tensor], scale: float) -> tuple[list[float], list[Tensor]]:
    """Seconds forward and backward, output and gradients."""
    inputs = [one.detach().requires_grad_() for one in made[:3]]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    events[0].record()
    out = on_gpu.ragged(*inputs, plan, scale)
    events[1].record()
    out.backward(made[3])
    events[2].record()
    torch.cuda.synchronize()
    seconds = [a.elapsed_time(b) / 1000 for a, b in pairwise(events)]
    return seconds, [out.detach(), *(one.grad for one in inputs if one.grad is not None)]


def measure(shape: ModelShape, plan: AttentionPlan, cudnn: bool) -> tuple[dict[str, Any], list[Tensor]]:
    """A rank under one kernel: its rates, and what came of it."""
    on_gpu.USE_CUDNN = cudnn
    segments = plan.segments
    made = tensors(shape, sum(one.length for one in segments), plan.num_keys or sum(one.length for one in segments))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(1 + REPETITIONS):
        seconds, found = passed(plan, made, shape.head_dim**-0.5)
        times.append(seconds)
    forward, backward = zip(*times[1:], strict=True)
    work = flops(shape, segments)
    return {
        "kernel": "cuDNN" if cudnn else "FlashAttention",
        "seconds": [a + b for a, b in zip(forward, backward, strict=True)],
        "first_s": sum(times[0]),
        "forward_tflops": work[0] / statistics.median(forward) / 1e12,
        "backward_tflops": work[1] / statistics.median(backward) / 1e12,
        "peak_gib": (torch.cuda.max_memory_allocated() - before) / 2**30,
    }, found


def apart(found: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    """Norms of differences over norms."""
    pairs = zip(NAMES, found, wanted, strict=True)
    return {name: float((a.float() - b.float()).norm() / b.float().norm()) for name, a, b in pairs}


def main() -> None:
    """Measure, print, write results/attention.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--tokens", type=int, default=65536, help="of the row, prompt and answer")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    options = parser.parse_args()
    shape, lines, worst = known_shape(options.shape), list[dict[str, Any]](), 0.0
    samples = make_samples(1, options.prompt, options.tokens - options.prompt + 1)
    ((row,),) = pack(samples, options.tokens)
    for ranks in options.ranks:
        for rank, plan in list(enumerate(plans(row, ranks)))[:: max(1, ranks - 1)]:
            ours, found = measure(shape, plan, cudnn=True)
            flash, wanted = measure(shape, plan, cudnn=False)
            gaps = apart(found, wanted)
            worst = max([worst, *gaps.values()]) if all(gap == gap for gap in gaps.values()) else float("nan")
            for line in (ours, flash):
                lines.append({"ranks": ranks, "rank": rank, **line, "apart": gaps})
                show(lines[-1])
    seconds = {f"{one['ranks']} ranks, rank {one['rank']}, {one['kernel']}": one["seconds"] for one in lines}
    report("attention", seconds, lines=lines, shape=options.shape, tokens=options.tokens, prompt=options.prompt)
    sys.exit(not worst <= MAX_APART)


def show(line: dict[str, Any]) -> None:
    """Print it."""
    gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in line["apart"].items())
    print(
        f"rank {line['rank']} of {line['ranks']}, {line['kernel']:<14} {statistics.median(line['seconds']):.4f} s "
        f"(first {line['first_s']:.2f})  forward {line['forward_tflops']:.0f}, backward "
        f"{line['backward_tflops']:.0f} TFLOP/s  {line['peak_gib']:.2f} GiB  apart: {gaps}",
        flush=True,
    )


if __name__ == "__main__":
    main()
