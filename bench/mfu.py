"""How much of the GPU's arithmetic the trainer uses: forward and backward of one packed micro-batch.

MFU counts the operations that the model needs, not those that recompute repeats: 6 per matrix parameter and token, the
output layer only where a token is predicted, and causal attention at half of the square; over 989 TFLOP/s, the H100's
dense bf16 rate. Beside it the rate of a large matrix product in the same run. Masters and Adam's moments are not there,
as if shared out over many data-parallel ranks; the optimiser step is measured by itself where it fits. Rows that a
trainer would compute as CUDA graphs are measured as such, too.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import modelcfg
from bench.gpu_trainer import make_config, make_samples, one_rank
from bench.limits import kernels_of, matmul_flops
from bench.record import report
from core.algorithm.loss import build_loss
from core.megatron.graphs.row_graphs import RowGraphs
from core.megatron.model import ModelOptions, build_model, forward_row
from core.megatron.parallel import initialise
from core.megatron.rows.packing import Row, pack
from core.megatron.rows.schedule import train_batch
from core.megatron.rows.tokens import TokenTable, TokenValues, micro_batch
from core.megatron.sizes.flops import PEAKS, update_flops
from core.megatron.sizes.graphs import most_tokens
from core.megatron.state.flat import move_into_flat
from core.megatron.state.optimizer import wrap
from core.samples import TrainSample
from modelcfg import ModelShape

PEAK = dict(PEAKS)["H100"]  # SXM; the H200's is the same
# shape: {tokens: layers that are recomputed, of an 80 GB GPU}
CASES = {
    "qwen3-0.6b": {4096: 0, 16384: 0},
    "qwen3-1.7b": {4096: 0, 16384: 0},
    "qwen3-4b": {4096: 0, 16384: 12},
    "qwen3-8b": {4096: 0, 16384: 27},
}
SEQUENCE, PROMPT, REPETITIONS, NUM_KERNELS = 4096, 512, 5, 14


def needed_flops(shape: ModelShape, row: Row) -> float:
    """Forward and backward of one row; of experts those that a token goes to."""
    pairs = sum(s.length * (s.prefix_length + s.length / 2) for s in row.segments)
    flops = update_flops(shape, len(row.tokens), len(row.targets), pairs)
    assert flops is not None, shape.name
    return flops


def build(shape: ModelShape, recompute: int, dtype: torch.dtype, selective: bool) -> Any:
    """Model with gradient buffers, random weights."""
    others: Literal["selective", "none"] = "selective" if selective else "none"
    options = ModelOptions(dtype, recompute="full" if recompute else others, recompute_layers=recompute or None)
    model = build_model(shape, options)
    parameters = list(model.parameters())
    move_into_flat(parameters)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.02) if parameter.dim() > 1 else parameter.fill_(1.0)
    return wrap(model, use_distributed_optimizer=False)


def make_batch(samples: list[TrainSample], tokens: int) -> tuple[Row, Any]:
    ((row,),) = pack(samples, tokens)
    table, flat = TokenTable(samples), sum(len(s.response_tokens) for s in samples)
    values = TokenValues(
        weights=torch.full((flat,), 1 / flat),
        advantages=table.spread([s.advantage for s in samples]),
        logprobs_engine=torch.full((flat,), -10.0),
        logprobs_old=None,
        logprobs_ref=None,
    )
    return row, micro_batch(row, table, values, "cuda")


@dataclass
class Case:
    """A model and a batch for it, on the GPU."""

    shape: ModelShape
    tokens: int
    recompute: int
    graphs: bool = False
    dtype: torch.dtype = torch.bfloat16
    selective: bool = False  # where no layer is recomputed whole

    def __post_init__(self) -> None:
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # CUDA graphs had one of their own
        torch.cuda.empty_cache()
        self.model = build(self.shape, self.recompute, self.dtype, self.selective)
        self.length = min(SEQUENCE, self.tokens)
        samples = make_samples(self.tokens // self.length, PROMPT, self.length - PROMPT + 1)
        self.row, self.batch = make_batch(samples, self.tokens)
        self.loss = build_loss(make_config(8).algorithm)
        self.predict = RowGraphs(self.tokens) if self.graphs else partial(forward_row, device="cuda")

    def compute(self) -> float:
        """Seconds of forward and backward."""
        torch.cuda.synchronize()
        began = time.perf_counter()
        self.model.zero_grad_buffer()
        train_batch(self.model, [self.batch], self.predict, self.loss)
        torch.cuda.synchronize()
        return time.perf_counter() - began


def measure(
    shape: ModelShape, tokens: int, recompute: int, graphs: bool = False, selective: bool = False
) -> dict[str, Any]:
    """One line of the table."""
    case = Case(shape, tokens, recompute, graphs, selective=selective)
    torch.cuda.reset_peak_memory_stats()
    seconds = [case.compute() for _ in range(REPETITIONS + 2)][2:]
    median = statistics.median(seconds)
    flops = needed_flops(shape, case.row)
    return {
        "shape": shape.name,
        "tokens": len(case.row.tokens),
        "mfu": flops / median / PEAK,
        "tflops": flops / median / 1e12,
        "tokens_per_s": len(case.row.tokens) / median,
        "sequence": case.length,
        "recomputed_layers": recompute,
        "graphs": graphs,
        "selective": selective,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "seconds": seconds,
    }


def measure_or_recompute(name: str, tokens: int, recompute: int) -> dict[str, Any]:
    """Measure, with further layers recomputed until the shape fits."""
    while True:
        try:
            return measure(modelcfg.load(name), tokens, recompute)
        except torch.OutOfMemoryError:
            if recompute == modelcfg.load(name).num_layers:
                raise
        print(f"{name} {tokens}: out of memory with {recompute} layers recomputed", flush=True)
        recompute += 1


def profile(line: dict[str, Any]) -> None:
    """Add the kernels that take the most time, and the share of the measured time in which the GPU had one to run."""
    case = Case(modelcfg.load(line["shape"]), line["tokens"], line["recomputed_layers"])
    case.compute()
    events = kernels_of(case.compute)
    total = sum(e.self_device_time_total for e in events)
    line["busy_share"] = total / 1e6 / statistics.median(line["seconds"])
    line["num_kernels"] = sum(e.count for e in events)
    line["kernels"] = [
        {
            "kernel": e.key[:90],
            "share": e.self_device_time_total / total,
            "calls": e.count,
            "ms": e.self_device_time_total / 1e3,
        }
        for e in events[:NUM_KERNELS]
    ]


def show(line: dict[str, Any]) -> None:
    """Print it."""
    print(
        f"{line['shape']:<12}{line['tokens']:>7} tokens  MFU {line['mfu']:.3f}  {line['tflops']:.0f} TFLOP/s  "
        f"{line['tokens_per_s']:.0f} tokens/s  peak {line['peak_gib']:.1f} GiB  "
        f"recomputed {line['recomputed_layers']}{'  as CUDA graphs' * line['graphs']}"
        f"{'  selective' * line['selective']}",
        flush=True,
    )
    if "kernels" in line:
        print(f"    {line['num_kernels']} kernels, the GPU busy for {line['busy_share']:.1%} of the time")
    for kernel in line.get("kernels", []):
        print(f"    {kernel['share']:6.1%} {kernel['ms']:8.1f} ms {kernel['calls']:5d}x {kernel['kernel']}")


def main() -> None:
    """Measure, print, write results/mfu.json. Profiles come last: a tracer slows down what follows it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=list(CASES))
    parser.add_argument("--profile", nargs="*", default=["qwen3-4b"])
    parser.add_argument(
        "--selective", nargs="*", default=[], help="shapes that selective recompute is measured of, too"
    )
    options = parser.parse_args()
    one_rank()
    initialise(make_config(8).placement, 0, "cuda")
    peak, lines = matmul_flops(), []
    for name in options.shapes:
        for tokens, recompute in CASES[name].items():
            lines.append(measure_or_recompute(name, tokens, recompute))
            show(lines[-1])
            if not recompute and tokens <= most_tokens(modelcfg.load(name)):
                lines.append(measure(modelcfg.load(name), tokens, 0, graphs=True))
                show(lines[-1])
    selective = [(name, tokens) for name in options.selective for tokens in CASES[name]]
    for name, tokens in selective:
        lines.append(measure(modelcfg.load(name), tokens, 0, selective=True))
        show(lines[-1])
    for line in lines:
        if line["shape"] in options.profile and not line["graphs"] and not line["selective"]:
            profile(line)
            show(line)
    seconds = {
        f"{line['shape']} {line['tokens']}{' graphs' * line['graphs']}{' selective' * line['selective']}": line[
            "seconds"
        ]
        for line in lines
    }
    report("mfu", seconds, mfu=lines, matmul_tflops=peak / 1e12, peak_tflops=PEAK / 1e12)


if __name__ == "__main__":
    main()
