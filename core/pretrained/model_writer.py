"""A HuggingFace directory, written tensor by tensor: nothing is held but the tensor at hand.

All sizes are known beforehand, so each file's header is written first and each tensor then goes to its place. The files
are byte for byte those of the safetensors library (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from core.pretrained.header import BITS, LENGTH_BYTES
from core.pretrained.packing import Packing, Shapes
from core.pretrained.side_files import copy_side_files, write_dtype, write_quantisation
from core.pretrained.weight_files import WHOLE, ModelTensor, write_index

SHARD_BYTES = 4 * 2**30
ALIGNMENT = 8  # of the header
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
DTYPES |= {torch.float8_e4m3fn: "F8_E4M3", torch.int8: "I8"}


class Slot(NamedTuple):
    """What a file holds of a tensor. `dtype` is spelled as the format has it."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True)
class Shard:
    """One file: its header, and where each of its tensors begins. `num_bytes` is that of the tensors."""

    name: str
    header: bytes
    places: dict[str, int]
    num_bytes: int


def plan_shards(slots: Mapping[str, Slot], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The files that hold these tensors, filled in their order; a tensor that is larger than a file has its own."""
    groups: list[dict[str, Slot]] = [{}]
    used = 0
    for name, slot in slots.items():
        if groups[-1] and used + slot.num_bytes > shard_bytes:
            groups.append({})
            used = 0
        groups[-1][name] = slot
        used += slot.num_bytes
    one = len(groups) == 1
    return [_shard(WHOLE if one else f"model-{i:05d}.safetensors", group) for i, group in enumerate(groups)]


@contextmanager
def written_model(
    directory: Path,
    source: Path,
    shapes: Shapes,
    dtype: torch.dtype,
    fixed: Collection[str] = (),
    carried: Mapping[str, ModelTensor] | None = None,
    shard_bytes: int = SHARD_BYTES,
    packing: Packing | None = None,
) -> Iterator[ModelWriter]:
    """A writer of all these tensors; the directory is a model when the block is left.

    Args:
        directory: new or empty.
        source: the model's directory that config.json, tokenizer and chat template are copied from.
        fixed: names of the tensors that are float32, whatever the `dtype` of the others.
        carried: further tensors, which are copied as they lie in their files; quantised ones in bfloat16.
        packing: what is in few bits instead; None: nothing.
    Raises:
        ValueError: at the end, if a tensor was not written.
        OSError: the place cannot be written to, or is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    copy_side_files(source, directory)
    write_dtype(directory, str(dtype).removeprefix("torch."))
    dtypes = {name: torch.float32 if name in fixed else dtype for name in shapes}
    slots = _slots(shapes, dtypes, packing)
    if packing is not None:
        write_quantisation(directory, packing.settings())
    carried = carried or {}
    slots |= {name: Slot(one.dtype, one.shape, one.num_bytes) for name, one in carried.items()}
    shards = plan_shards(slots, shard_bytes)
    with ExitStack() as stack:
        files = {shard.name: stack.enter_context((directory / shard.name).open("wb")) for shard in shards}
        writer = ModelWriter(shapes, dtypes, shards, files, packing)
        yield writer
        for name, tensor in carried.items():
            writer.put(name, tensor.read())
        if left := writer.left:
            raise ValueError(f"nothing was written for {', '.join(sorted(left)[:3])}")
    if len(shards) > 1:  # a single file needs no index
        places = {name: shard.name for shard in shards for name in shard.places}
        write_index(directory, places, sum(shard.num_bytes for shard in shards))


class ModelWriter:
    """Writes each tensor once, in any order."""

    def __init__(
        self,
        shapes: Shapes,
        dtypes: Mapping[str, torch.dtype],
        shards: list[Shard],
        files: Mapping[str, IO[bytes]],
        packing: Packing | None = None,
    ) -> None:
        self._shapes, self._dtypes, self._files, self._packing = shapes, dtypes, files, packing
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
        if self._packing is not None and name in self._packing.names:
            for end, part in self._packing.make(tensor).items():
                self.put(name + end, host_bytes(part, part.dtype))
        else:
            self.put(name, host_bytes(tensor, self._dtypes[name]))

    def put(self, name: str, content: memoryview | bytearray) -> None:
        """Write the bytes of a tensor as they are to lie in its file."""
        shard = self._shard_of[name]
        file = self._files[shard.name]
        file.seek(LENGTH_BYTES + len(shard.header) + shard.places[name])
        file.write(content)


def host_bytes(tensor: Tensor, dtype: torch.dtype) -> memoryview:
    """A tensor's elements as they lie in a file; not copied where they lie so on the host."""
    on_host = tensor.detach().to("cpu", dtype).contiguous()
    return on_host.view(-1).view(torch.uint8).numpy().data


def _slots(shapes: Shapes, dtypes: Mapping[str, torch.dtype], packing: Packing | None) -> dict[str, Slot]:
    """The tensors that the files hold."""
    if packing is None:
        return {name: _slot(shape, dtypes[name]) for name, shape in shapes.items()}
    of_whole = {name: dtype for name, dtype in dtypes.items() if name not in packing.names}
    of_numbers = dict.fromkeys(filter(packing.is_numbers, packing.shapes(shapes)), getattr(torch, packing.scheme.dtype))
    known = of_whole | of_numbers  # the others are factors
    return {name: _slot(shape, known.get(name, torch.float32)) for name, shape in packing.shapes(shapes).items()}


def _slot(shape: tuple[int, ...], dtype: torch.dtype) -> Slot:
    return Slot(DTYPES[dtype], shape, prod(shape) * dtype.itemsize)


def _shard(name: str, group: Mapping[str, Slot]) -> Shard:
    """The tensors of a file lie by size of their elements, widest first, and by name, as the library has them."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, end = {}, 0
    for tensor in sorted(group, key=lambda name: (-BITS.get(group[name].dtype, 0), name)):
        slot = group[tensor]
        offsets = [end, end + slot.num_bytes]
        entries[tensor] = {"dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": offsets}
        places[tensor] = end
        end += slot.num_bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return Shard(name, text + b" " * (-len(text) % ALIGNMENT), places, end)
