"""A HuggingFace directory of a known shape with random weights, in shards: as fast to write as the disk is.

Every matrix is a piece of one pool of normal numbers, from a place of its own, so no two experts are alike; norms are
1. With zeros, as `model_dir.py` has them, a router would send all tokens to the same experts.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.model_dir import BF16_BYTES, hf_config
from core.pretrained.weight_files import write_index
from modelcfg import ModelShape, hf_tensors

DEVIATION = 0.02  # of the weights, as models are initialised
POOL = 2**28  # numbers
SHARD_BYTES = 4 * 2**30


class Tensor(NamedTuple):
    """One of the files' tensors."""

    name: str
    size: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.size)


def write_random_model(shape: ModelShape, directory: Path, *, seed: int = 0, pool: int = POOL) -> Path:
    """Write config.json, shards and their index.

    Args:
        pool: numbers that are drawn; a larger tensor repeats them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(hf_config(shape), indent=1))
    drawn = torch.empty(pool).normal_(0.0, DEVIATION, generator=torch.Generator().manual_seed(seed))
    numbers = memoryview(drawn.to(torch.bfloat16).view(torch.uint8).numpy())
    places, shards = random.Random(seed), list(_shards(shape))
    index: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        with (directory / name).open("wb") as file:
            file.write(_header(tensors))
            for tensor in tensors:
                file.writelines(_content(tensor, numbers, places))
        index |= dict.fromkeys((tensor.name for tensor in tensors), name)
    total = sum(tensor.numel * BF16_BYTES for tensors in shards for tensor in tensors)
    write_index(directory, index, total)
    return directory


def _shards(shape: ModelShape) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    for name, size in hf_tensors(shape).items():
        shard.append(Tensor(name, size))
        if sum(tensor.numel for tensor in shard) * BF16_BYTES >= SHARD_BYTES:
            yield shard
            shard = []
    if shard:
        yield shard


def _header(tensors: list[Tensor]) -> bytes:
    """What stands ahead of the numbers of a safetensors file: its length, and where each tensor is."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.numel * BF16_BYTES
        header[tensor.name] = {"dtype": "BF16", "shape": list(tensor.size), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _content(tensor: Tensor, numbers: memoryview, places: random.Random) -> Iterator[memoryview]:
    if tensor.name.endswith("norm.weight"):
        yield memoryview(torch.ones(tensor.numel, dtype=torch.bfloat16).view(torch.uint8).numpy())
        return
    left, begin = tensor.numel * BF16_BYTES, places.randrange(len(numbers) // BF16_BYTES) * BF16_BYTES
    while left:
        piece = numbers[begin : begin + left]
        yield piece
        left, begin = left - len(piece), 0
