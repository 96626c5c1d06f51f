"""A HuggingFace directory, written tensor by tensor: nothing is held but the tensor at hand.

All sizes are known beforehand, so each file's header is written first and each tensor then goes to its place. The files
are byte for byte those of the safetensors library (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from core.pretrained.header import LENGTH_BYTES
from core.pretrained.side_files import copy_side_files, write_dtype
from core.pretrained.weight_files import WHOLE, write_index

SHARD_BYTES = 4 * 2**30
ALIGNMENT = 8  # of the header
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shard:
    """One file: its header, and where each of its tensors begins. `num_bytes` is that of the tensors."""

    name: str
    header: bytes
    places: dict[str, int]
    num_bytes: int


def plan_shards(shapes: Shapes, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The files that hold these tensors, filled in their order; a tensor that is larger than a file has its own."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    used = 0
    for name, shape in shapes.items():
        num_bytes = prod(shape) * dtype.itemsize
        if groups[-1] and used + num_bytes > shard_bytes:
            groups.append({})
            used = 0
        groups[-1][name] = shape
        used += num_bytes
    one = len(groups) == 1
    return [_shard(WHOLE if one else f"model-{i:05d}.safetensors", group, dtype) for i, group in enumerate(groups)]


@contextmanager
def written_model(
    directory: Path, source: Path, shapes: Shapes, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
) -> Iterator[ModelWriter]:
    """A writer of all these tensors; the directory is a model when the block is left.

    Args:
        directory: new or empty.
        source: the model's directory that config.json, tokenizer and chat template are copied from.
    Raises:
        ValueError: at the end, if a tensor was not written.
        OSError: the place cannot be written to, or is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    copy_side_files(source, directory)
    write_dtype(directory, str(dtype).removeprefix("torch."))
    shards = plan_shards(shapes, dtype, shard_bytes)
    with ExitStack() as stack:
        files = {shard.name: stack.enter_context((directory / shard.name).open("wb")) for shard in shards}
        writer = ModelWriter(shapes, dtype, shards, files)
        yield writer
        if left := writer.left:
            raise ValueError(f"nothing was written for {', '.join(sorted(left)[:3])}")
    if len(shards) > 1:  # a single file needs no index
        places = {name: shard.name for shard in shards for name in shard.places}
        write_index(directory, places, sum(shard.num_bytes for shard in shards))


class ModelWriter:
    """Writes each tensor once, in any order."""

    def __init__(self, shapes: Shapes, dtype: torch.dtype, shards: list[Shard], files: Mapping[str, IO[bytes]]) -> None:
        self._shapes, self._dtype, self._files = shapes, dtype, files
        self._shard_of = {name: shard for shard in shards for name in shard.places}
        self.left = set(shapes)
        for shard in shards:
            files[shard.name].write(len(shard.header).to_bytes(LENGTH_BYTES, "little") + shard.header)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, from whatever device it is on, in the model's precision.

        Raises:
            ValueError: it is not of its shape, or was written before.
        """
        if name not in self.left or tuple(tensor.shape) != tuple(self._shapes[name]):
            wanted = list(self._shapes[name]) if name in self.left else "a tensor that is still to come"
            raise ValueError(f"{name}: found {list(tensor.shape)}; wanted {wanted}")
        self.left.remove(name)
        shard = self._shard_of[name]
        file = self._files[shard.name]
        file.seek(LENGTH_BYTES + len(shard.header) + shard.places[name])
        file.write(host_bytes(tensor, self._dtype))


def host_bytes(tensor: Tensor, dtype: torch.dtype) -> memoryview:
    """A tensor's elements as they lie in a file; not copied where they lie so on the host."""
    on_host = tensor.detach().to("cpu", dtype).contiguous()
    return on_host.view(-1).view(torch.uint8).numpy().data


def _shard(name: str, group: Shapes, dtype: torch.dtype) -> Shard:
    """The tensors of a file lie in the order of their names, as the library has them."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, end = {}, 0
    for tensor, shape, num_bytes in _sorted(group, dtype):
        entries[tensor] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [end, end + num_bytes]}
        places[tensor] = end
        end += num_bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return Shard(name, text + b" " * (-len(text) % ALIGNMENT), places, end)


def _sorted(group: Shapes, dtype: torch.dtype) -> Iterator[tuple[str, tuple[int, ...], int]]:
    return ((name, group[name], prod(group[name]) * dtype.itemsize) for name in sorted(group))
