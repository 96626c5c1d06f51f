"""How fast an engine generates under each attention kernel that the machine has, beside what its memory allows.

    python bench/rollout.py --attention triton fa3       # Qwen3-4B's shape, one GPU
    python bench/rollout.py --attention torch_native --shape smollm2-135m:2 --groups 2 --response 16   # on a CPU

Two rows for each kernel: a rollout as a run has it, and the engine alone, asked by a request for each group. All
samples are in flight, all responses have one length, and prompts are in the engine's cache after the first
repetition. The limit beside them: each step of decoding reads the weights once for all samples, and the keys and
values of each sample's tokens, at the rate of a copy within the GPU. Writes results/rollout.json.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench.engine_only import EngineOnly, engine_only
from bench.limits import device_copy_bandwidth
from bench.long_tail import alone
from bench.model_dir import BF16_BYTES, known_shape
from bench.record import alternate, report
from core.rollout.request import Request
from core.samples import Prompt, SamplingParams
from modelcfg import ModelShape, num_parameters

COPIED_BYTES = 1 << 32


def main() -> None:
    """Measure, print, write."""
    options = _options()
    os.environ["EBBTIDE_API_KEY"] = ""
    samples = options.groups * options.group_size
    seconds: dict[str, list[float]] = {}
    for attention in options.attention:
        chosen = {"attention_backend": attention}
        with engine_only(options.shape, slots=samples, fraction=options.fraction, **chosen) as engine:
            seconds |= measure(engine, attention, options)
    tokens = samples * options.response
    rates = {f"{name}_tokens_per_s": tokens / statistics.median(values) for name, values in seconds.items()}
    if torch.cuda.is_available():
        rates["limit_tokens_per_s"] = limit(known_shape(options.shape), samples, options.prompt, options.response)
    report("rollout", seconds, **vars(options), **rates)


def measure(engine: EngineOnly, attention: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a rollout as a run has it, and of the engine alone, in turns."""
    prompts, numbers = engine.prompts(options.groups, options.prompt), itertools.count()
    params = SamplingParams(options.response)

    def rollout() -> None:
        before = engine.counted.num_tokens
        made = engine.rollout().generate(_request(prompts, options, f"bench/{next(numbers)}"))
        assert not [sample for sample in made.samples if sample.failure]
        wanted = options.groups * options.group_size * options.response
        made_tokens = engine.counted.num_tokens - before  # random weights end some answers early
        assert 0.95 * wanted <= made_tokens <= wanted, f"{made_tokens} tokens, wanted {wanted}"

    cases = {
        f"{attention}, rollout": rollout,
        f"{attention}, engine alone": lambda: alone(engine, prompts, options.group_size, params),
    }
    return alternate(cases, options.repetitions)


def limit(shape: ModelShape, samples: int, prompt: int, response: int) -> float:
    """Tokens per second if only reading counted: weights once a step, keys and values of each sample's tokens."""
    gc.collect()
    weights = num_parameters(shape) * BF16_BYTES
    per_token = 2 * shape.num_layers * shape.num_query_groups * shape.head_dim * BF16_BYTES
    read = response * (weights + samples * (prompt + response / 2) * per_token)
    return samples * response / (read / (2 * device_copy_bandwidth(COPIED_BYTES)))  # a copy reads and writes


def _request(prompts: list[Prompt], options: argparse.Namespace, key: str) -> Request:
    def sampling(group: int, index: int) -> SamplingParams:
        return SamplingParams(options.response, seed=1000 * group + index)

    return Request(key, prompts, options.group_size, sampling, "bench")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--attention", nargs="+", default=["triton"], help="SGLang's names; each has an engine")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--response", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
