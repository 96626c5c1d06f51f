"""States over the tokens of a packed row (the gated delta rule of Qwen3-Next), forward and backward: time and memory.

    python bench/states.py

As in a layer, the forward pass keeps the inputs alone and is computed again. Heads are Qwen3-Next's; rows are one long
sequence, several of middle length, and responses to one prompt. Numbers are of float32 per token and state: what the
planner reckons with (`core/megatron/sizes/activations.py`). Leaves out what a layer does ahead of the rule and behind
it. Writes results/states.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.record import report
from core.megatron.attention.delta_rule import delta_rule
from core.megatron.attention.runs import Runs, plan_runs
from core.megatron.rows.packing import Segment

KEY = VALUE = 128
REPEAT = 2  # states of a key head
REPETITIONS = 5
FLOAT32 = 4
ROWS = {
    "one of 16,384": (Segment(0, 16384),),
    "eight of 2,048": tuple(Segment(2048 * index, 2048) for index in range(8)),
    "eight to a prompt": (Segment(0, 1000), *(Segment(1000 + 1923 * index, 1923, 0, 1000) for index in range(8))),
}
STATES = (8, 32)


def inputs(num_tokens: int, states: int) -> list[Tensor]:
    """Random query, key, value, decay and strength on the GPU."""
    heads = states // REPEAT
    query, key = (torch.randn(num_tokens, heads, KEY, device="cuda") for _ in range(2))
    value = torch.randn(num_tokens, heads, REPEAT, VALUE, device="cuda")
    decay, strength = torch.rand(2, num_tokens, heads, REPEAT, device="cuda").unbind()
    found = (query * KEY**-0.5, key / key.norm(dim=-1, keepdim=True), value, -decay, strength)
    return [one.requires_grad_() for one in found]


def measure(segments: tuple[Segment, ...], states: int) -> tuple[list[float], float]:
    """Seconds of each repetition, and numbers of float32 per token and state at the peak."""
    num_tokens = sum(segment.length for segment in segments)
    runs, given, seconds = plan_runs(segments, "cuda"), inputs(num_tokens, states), []
    before = torch.cuda.memory_allocated()
    for _ in range(REPETITIONS + 1):
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        began = time.perf_counter()
        _pass(given, runs)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    numbers = (torch.cuda.max_memory_allocated() - before) / FLOAT32 / num_tokens / states
    return seconds[1:], numbers


def _pass(given: list[Tensor], runs: Runs) -> None:
    read = checkpoint(lambda *x: delta_rule(*x, runs), *given, use_reentrant=False, preserve_rng_state=False)
    read.sum().backward()
    for one in given:
        one.grad = None


def main() -> None:
    """Measure, print, write results/states.json."""
    seconds, numbers = dict[str, list[float]](), dict[str, float]()
    for row, segments in ROWS.items():
        for states in STATES:
            name = f"{row}, {states} states"
            seconds[name], numbers[f"numbers, {name}"] = measure(segments, states)
    report("states", seconds, tokens=16384, **numbers)


if __name__ == "__main__":
    main()
