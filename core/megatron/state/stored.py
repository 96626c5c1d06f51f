"""Weights out of a trainer's checkpoint under HuggingFace names, without Megatron, a process group or a GPU.

Whatever layout wrote it: the files hold a parameter of all layers as one tensor [layers, …], of experts as
[layers, experts, …], in pieces, one or more for each layer; where layers differ, a parameter of each as a tensor of its
own. Only those of the parameter at hand are read. Left out: the optimiser's state.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from common.mistake import Wrong
from core.megatron.state.names import Entry, export_entries, join, whole_tensors
from modelcfg import ModelShape
from modelcfg.weights import EMBEDDING

# a parameter's name here → in the files, where Megatron names norms after the layers that they are ahead of
RENAMED = (
    ("input_layernorm.", "self_attention.linear_qkv.layer_norm_"),
    ("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_"),
    ("mlp.experts.local_experts.", "mlp.experts.experts."),
)
NUMBERED = re.compile(r"\.(?:layers|local_experts)\.(\d+)(?=\.)")
EXPERT = re.compile(r"\.local_experts\.(\d+)(?=\.)")

Place = tuple[int, ...]  # layer, layer and expert, or expert, of a parameter


class StoredModel:
    """The model in the folder that `checkpoint.save` wrote."""

    def __init__(self, folder: Path, shape: ModelShape) -> None:
        """Read what the files hold.

        Raises:
            OSError: they cannot be read.
        """
        self._folder, self._shape = folder, shape
        self._reader = FileSystemReader(folder)
        metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(metadata, is_coordinator=True)
        tensors = metadata.state_dict_metadata.items()
        self._tensors = {key: value for key, value in tensors if isinstance(value, TensorStorageMetadata)}
        self._chunks: dict[str, dict[Place, list[ChunkStorageMetadata]]] = {}

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, as the trainer has them."""
        found: torch.dtype = self._stored(EMBEDDING, ())[1].properties.dtype
        return found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a HuggingFace checkpoint by name, in its order.

        Raises:
            Wrong: one is not there, or has another shape.
        """
        return whole_tensors(self._of_entries(), self._shape)

    def _of_entries(self) -> Iterator[tuple[str, Tensor]]:
        for entry in export_entries(self._shape):
            held = entry.of_rank(0)
            whole = self.read(held)
            try:
                found = join(held, [whole], self._shape)
            except RuntimeError as error:  # it cannot be cut into what it should hold
                raise self._other_shape(held, whole) from error
            for (name, tensor), wanted in zip(found, held.shapes, strict=True):
                if tuple(tensor.shape) != tuple(wanted):
                    raise self._other_shape(held, whole)
                yield name, tensor
            del found, whole

    def read(self, entry: Entry) -> Tensor:
        """The whole parameter, of all tensor-parallel ranks.

        Raises:
            Wrong: it is not there, or a part of it is not.
        """
        place = tuple(int(number) for number in NUMBERED.findall(entry.local))
        key, stored, place = self._stored(entry.local, place)
        size = stored.size[len(place) :]
        region = ChunkStorageMetadata(torch.Size([*place, *[0] * len(size)]), torch.Size([*[1] * len(place), *size]))
        of_place = TensorStorageMetadata(stored.properties, stored.size, self._of_places(key, len(place))[place])
        items = create_read_items_for_chunk_list(key, of_place, [region])
        if sum(prod(item.lengths) for item in items) != prod(region.sizes):
            raise Wrong(f"a part of {entry.local} in {self._folder}", "all of it", "take another checkpoint")
        whole = torch.empty(region.sizes, dtype=stored.properties.dtype)
        self._reader.read_data(LoadPlan(items), _Into(whole))
        return whole.view(size)

    def _stored(self, local: str, place: Place) -> tuple[str, TensorStorageMetadata, Place]:
        """Key and description of the tensor in which a parameter lies, and the place in it."""
        name = NUMBERED.sub(_without_number, local)
        of_layer = EXPERT.sub(_without_number, local)  # where layers differ
        places = {name: place, _renamed(name): place, of_layer: place[1:], _renamed(of_layer): place[1:]}
        for key, within in places.items():
            stored = self._tensors.get(key)
            if stored is not None and all(number < size for number, size in zip(within, stored.size, strict=False)):
                return key, stored, within
        where = f" {', '.join(map(str, place))}" if place else ""
        found = f"no {name}{where} in {self._folder}"
        raise Wrong(found, "the model of config.json", "give the run its model back, as it was trained")

    def _of_places(self, key: str, depth: int) -> dict[Place, list[ChunkStorageMetadata]]:
        """Pieces of a tensor by the place that they are of."""
        if key not in self._chunks:
            found = defaultdict(list)
            for chunk in self._tensors[key].chunks:
                starts = zip(chunk.offsets[:depth], chunk.sizes[:depth], strict=True)
                for place in product(*(range(start, start + size) for start, size in starts)):
                    found[place].append(chunk)
            self._chunks[key] = found
        return self._chunks[key]

    def _other_shape(self, entry: Entry, whole: Tensor) -> Wrong:
        found = f"{list(whole.shape)} for {entry.local} in {self._folder}"
        wanted = f"{' and '.join(str(list(shape)) for shape in entry.shapes)}, by config.json"
        return Wrong(found, wanted, "give the run its model back, as it was trained")


def _renamed(name: str) -> str:
    for here, there in RENAMED:
        name = name.replace(here, there)
    return name


def _without_number(match: re.Match[str]) -> str:
    return match[0].rpartition(".")[0]


class _Into(DefaultLoadPlanner):
    """A planner for torch's reader: all that it reads goes into one tensor."""

    def __init__(self, whole: Tensor) -> None:
        super().__init__()
        self._whole = whole

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """The part that an item fills."""
        part = self._whole
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            part = part.narrow(dim, start, length)
        return part

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Leave it: it lies in its place."""
