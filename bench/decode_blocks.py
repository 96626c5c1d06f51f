"""SGLang's triton kernel for decoding, by the number of blocks over which a sample's keys are shared out.

    python bench/decode_blocks.py                       # Qwen3-4B, Qwen3-30B-A3B and SmolLM2-135M, one GPU

For each shape, number of samples and tokens of each sample (all alike): microseconds of a layer's attention with the
blocks that SGLang takes by its own settings, with those that engines of a run take, and with one, beside what reading
keys and values takes at the rate of a copy within the GPU. Layers follow each other, so that nothing is in the GPU's
cache. Writes results/decode_blocks.json; ends with 1 if blocks change outputs by more than bfloat16 rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from bench.limits import device_copy_bandwidth, seconds_of
from bench.model_dir import BF16_BYTES, known_shape
from bench.record import RESULTS, commit, machine, versions
from core.sglang.launch import ENGINE_SITE, MOST_BLOCKS
from modelcfg import ModelShape

SGLANGS_MOST = 8  # its triton_attention_num_kv_splits
CACHE_BYTES = 1 << 28  # keys and values of a round over all layers: several times what the GPU's cache holds
MAX_APART = 1e-2  # norm of the difference over the norm


class Batch(NamedTuple):
    """Samples that are decoded together, each of `tokens` tokens, over some layers' keys and values."""

    shape: ModelShape
    samples: int
    tokens: int
    queries: Tensor
    layers: list[tuple[Tensor, Tensor]]


def batch(shape: ModelShape, samples: int, tokens: int) -> Batch:
    """Random tensors."""
    size = (samples * tokens, shape.num_query_groups, shape.head_dim)
    count = max(1, CACHE_BYTES // (2 * samples * tokens * size[1] * size[2] * BF16_BYTES))

    def random(*of: int) -> Tensor:
        return torch.randn(*of, device="cuda", dtype=torch.bfloat16)

    layers = [(random(*size), random(*size)) for _ in range(min(count, 36))]
    return Batch(shape, samples, tokens, random(samples, shape.num_attention_heads, shape.head_dim), layers)


def sglangs_own(made: Batch, most: int) -> Tensor:
    """The blocks of each sample by SGLang's rule."""
    from sglang.kernels.ops.attention.metadata import get_num_kv_splits_triton

    blocks = torch.empty(made.samples, dtype=torch.int32, device="cuda")
    cores = torch.cuda.get_device_properties(0).multi_processor_count
    heads = (made.shape.num_attention_heads, made.shape.num_query_groups)
    get_num_kv_splits_triton[(1,)](blocks, _lengths(made), made.samples, 1, *heads, most, cores, MAX_NUM_SEQ=256)
    return blocks


def as_in_runs(made: Batch) -> Tensor:
    """The blocks of each sample that an engine's plugin counts."""
    blocks = sglangs_own(made, MOST_BLOCKS)
    _plugin().count_by_length(None, SimpleNamespace(use_mla=False, max_kv_splits=MOST_BLOCKS), blocks, _lengths(made))
    return blocks


def _plugin() -> Any:
    sys.path.append(str(ENGINE_SITE))
    return import_module("ebbtide_triton_blocks")


def _lengths(made: Batch) -> Tensor:
    return torch.full((made.samples,), made.tokens, dtype=torch.int32, device="cuda")


def attend(made: Batch, blocks: Tensor, most: int, start: Callable[..., Any]) -> tuple[Callable[[], None], Tensor]:
    """One layer after the other by `start`, and where the last one's output is."""
    out = torch.empty_like(made.queries)
    heads, size = made.queries.shape[1:]
    parts = torch.empty(made.samples, heads, most, size, device="cuda")
    sums = torch.empty(made.samples, heads, most, device="cuda")
    begins = torch.arange(made.samples + 1, device="cuda", dtype=torch.int32) * made.tokens
    places = torch.arange(made.samples * made.tokens, device="cuda", dtype=torch.int64)

    def all_layers() -> None:
        for keys, values in made.layers:
            where = (begins, places, parts, sums, blocks, most)
            start(made.queries, keys, values, out, *where, size**-0.5, 1.0, 1.0)

    return all_layers, out


def microseconds(act: Callable[[], None], layers: int) -> float:
    """Time of a layer, by replays of a CUDA graph."""
    act()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        act()
    return seconds_of(graph.replay) / layers * 1e6


def measured(made: Batch, rate: float) -> tuple[dict[str, Any], float]:
    """A line of the result, and how far outputs are apart from those of one block."""
    from sglang.kernels.ops.attention.decode_attention import decode_attention_fwd as usual

    own, ours = sglangs_own(made, SGLANGS_MOST), as_in_runs(made)
    cases = {
        "one": (torch.ones_like(own), SGLANGS_MOST, usual),
        "sglang": (own, SGLANGS_MOST, usual),
        "runs": (ours, MOST_BLOCKS, partial(_plugin().start_as_many, usual)),
    }
    line: dict[str, Any] = {"samples": made.samples, "tokens": made.tokens}
    outputs = []
    for name, (blocks, *how) in cases.items():
        act, out = attend(made, blocks, *how)
        line |= {f"{name}_blocks": int(blocks[0]), f"{name}_us": round(microseconds(act, len(made.layers)), 2)}
        outputs.append(out.float())
    keys, values = made.layers[0]
    line["limit_us"] = round((keys.nbytes + values.nbytes) / rate * 1e6, 2)
    return line, max(float((out - outputs[0]).norm() / outputs[0].norm()) for out in outputs)


def main() -> None:
    """Measure, print, write."""
    options = _options()
    rate, apart, lines = 2 * device_copy_bandwidth(1 << 32), 0.0, []
    for name in options.shapes:
        for samples in options.samples:
            for tokens in options.tokens:
                line, differs = measured(batch(known_shape(name), samples, tokens), rate)
                apart = max(apart, differs)
                lines.append({"shape": name, **line})
                print(*(f"{key}={value}" for key, value in lines[-1].items()))
    record = {"lines": lines, "apart": apart, "machine": machine(), "versions": versions(), "commit": commit()}
    (RESULTS / "decode_blocks.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"outputs apart: {apart:.1e}")
    sys.exit(int(not apart < MAX_APART))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["qwen3-4b", "qwen3-30b-a3b", "smollm2-135m"])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 512, 1024, 2048, 4096, 8192])
    return parser.parse_args()


if __name__ == "__main__":
    main()
