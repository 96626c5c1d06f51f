"""Which Megatron parameter holds which HuggingFace tensors, and how it is split over tensor- and expert-parallel ranks.

Pure planning and slicing: no process group, no files. Legend: H hidden, d head dim, n query heads per group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from modelcfg import DeltaNet, ModelShape
from modelcfg.stages import ONE_STAGE, Stages
from modelcfg.table import after_layers, before_layers, layer_prefix, layer_weights
from modelcfg.weights import OUTPUT, Kind, Weight, part_of


@dataclass(frozen=True)
class Entry:
    """One Megatron parameter. `local` is its name on pipeline stage `stage`; `hf` the tensors that it holds.

    `shapes` are the whole shapes of these tensors, `kind` says how they are cut. What is named `NAME[e]` is a part of
    a tensor NAME of all experts.
    An expert's parameter is another expert's on every expert-parallel rank: `hf` has the tensors of all of them, rank
    by rank, and `of_rank` what one of them holds; it is cut over other ranks than the rest is. A `fixed` one is not
    trained, and float32.
    """

    stage: int
    local: str
    hf: tuple[str, ...]
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]
    expert_ranks: int = 0  # 0: the same on all ranks
    fixed: bool = False
    of_expert: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether tensor-parallel ranks have parts of it; of an expert, those over which experts are cut."""
        return self.kind not in ("replicated", "turned", "by_turns")

    def of_rank(self, rank: int) -> Entry:
        """The entry as expert-parallel rank `rank` holds it."""
        if not self.expert_ranks:
            return self
        width = len(self.hf) // self.expert_ranks
        held = slice(rank * width, (rank + 1) * width)
        return Entry(self.stage, self.local, self.hf[held], self.kind, self.shapes[held], of_expert=True)


def export_entries(shape: ModelShape, stages: Stages = ONE_STAGE, expert_ranks: int = 1) -> list[Entry]:
    """Every HuggingFace tensor once, in HuggingFace's order; experts in that of their places on a rank, but
    parts of one tensor together.
    """
    entries = [_entry(before_layers(shape), 0)]
    for stage, layer, index in stages.places(shape.num_layers):
        local, hf = f"decoder.layers.{index}.", layer_prefix(shape, layer)
        table = layer_weights(shape, layer)
        entries += [_entry(weight, stage, local, hf) for weight in table if not weight.of_expert]
        entries += [
            _of_experts(weight, stage, local, hf, place, shape.num_experts, expert_ranks)
            for weight, place in _places([weight for weight in table if weight.of_expert], shape, expert_ranks)
        ]
    return entries + [_entry(weight, stages.number - 1) for weight in after_layers(shape)]


def _places(weights: Sequence[Weight], shape: ModelShape, expert_ranks: int) -> list[tuple[Weight, int]]:
    """Each of the experts' weights at each place of a rank."""
    places = range(shape.num_experts // expert_ranks)
    if any(weight.is_part for weight in weights):
        return [(weight, place) for weight in weights for place in places]
    return [(weight, place) for place in places for weight in weights]


def _entry(weight: Weight, stage: int, local: str = "", hf: str = "") -> Entry:
    names = tuple(hf + x for x in weight.hf)
    return Entry(stage, local + weight.local, names, weight.kind, weight.shapes, fixed=weight.fixed)


def _of_experts(
    weight: Weight, stage: int, local: str, hf: str, place: int, num_experts: int, expert_ranks: int
) -> Entry:
    """What the experts at one place of all expert-parallel ranks have: one of each rank."""
    numbers = range(place, num_experts, num_experts // expert_ranks)
    names = tuple(hf + x.format(expert=number) for number in numbers for x in weight.hf)
    shapes = weight.shapes * len(numbers)
    local += weight.local.format(place=place)
    return Entry(stage, local, names, weight.kind, shapes, expert_ranks, of_expert=True)


def load_entries(
    shape: ModelShape, stages: Stages, stage: int, expert_ranks: int = 1, expert_rank: int = 0
) -> list[Entry]:
    """Every parameter of one rank; with tied embeddings the last of several stages holds a second copy."""
    everywhere = export_entries(shape, stages, expert_ranks)
    entries = [entry.of_rank(expert_rank) for entry in everywhere if entry.stage == stage]
    if shape.tied_embeddings and 0 < stage == stages.number - 1:
        entries.append(replace(_entry(before_layers(shape), stage), local=OUTPUT))
    return entries


def split(entry: Entry, read: Callable[[str, slice, slice], Tensor], shape: ModelShape, rank: int, size: int) -> Tensor:
    """The part of a parameter that tensor-parallel rank `rank` of `size` holds.

    Args:
        rank, size: of an expert's, among the ranks over which experts are cut.
        read: gives `tensor[rows]` or, for a matrix, `tensor[rows, columns]` of a HuggingFace tensor, or of a part of
            one; only what is needed is asked for.
    """
    everything = slice(None)
    if entry.kind == "replicated":
        return read(entry.hf[0], everything, everything)
    if entry.kind == "turned":
        return read(entry.hf[0], everything, everything).t()
    if entry.kind == "by_turns":
        found = read(entry.hf[0], everything, everything)
        return torch.cat((found[..., ::2], found[..., 1::2]), -1).t()
    if entry.kind == "vocab":
        whole = entry.shapes[0][0]
        rows = -(-whole // size)
        found = read(entry.hf[0], slice(rank * rows, min((rank + 1) * rows, whole)), everything)
        return functional.pad(found, (0, 0, 0, rows - found.shape[0]))
    if entry.kind == "rows":
        height = entry.shapes[0][0] // size
        return read(entry.hf[0], slice(rank * height, (rank + 1) * height), everything)
    if entry.kind == "columns":
        width = entry.shapes[0][1] // size
        return read(entry.hf[0], everything, slice(rank * width, (rank + 1) * width))
    if entry.kind == "gate_up":
        return torch.cat([read(name, rows, everything) for name, rows in _gate_and_up(entry, rank, size)])
    if entry.kind == "by_head":
        return _head_by_head(entry, read, shape, rank, size)
    if shape.num_query_groups % size:  # a group is spread over ranks: cut the assembled rows
        return _interleave(entry, read, shape, 0, shape.num_query_groups).chunk(size)[rank]
    groups = shape.num_query_groups // size
    return _interleave(entry, read, shape, rank * groups, (rank + 1) * groups)


def join(entry: Entry, parts: Sequence[Tensor], shape: ModelShape) -> list[tuple[str, Tensor]]:
    """The HuggingFace tensors, or parts of them, from the parts of all tensor-parallel ranks, in rank order."""
    if entry.kind == "replicated":
        return [(entry.hf[0], parts[0])]
    if entry.kind == "turned":
        return [(entry.hf[0], parts[0].t())]
    if entry.kind == "by_turns":
        return [(entry.hf[0], torch.stack(parts[0].t().chunk(2, -1), -1).flatten(-2))]
    if entry.kind == "rows":
        return [(entry.hf[0], _cat(parts, 0))]
    if entry.kind == "columns":
        return [(entry.hf[0], _cat(parts, 1))]
    if entry.kind == "vocab":
        return [(entry.hf[0], _cat(parts, 0)[: entry.shapes[0][0]])]
    if entry.kind == "gate_up":
        gates, ups = zip(*(part.chunk(2) for part in parts), strict=True)
        if len(entry.hf) == 1:
            return [(entry.hf[0], parts[0] if len(parts) == 1 else torch.cat([*gates, *ups]))]
        return [(name, _cat(halves, 0)) for name, halves in zip(entry.hf, (gates, ups), strict=True)]
    if entry.kind == "by_head":
        return [(entry.hf[0], _part_by_part(_cat(parts, 0), shape))]
    rows = _cat(parts, 0)
    grouped = rows.view(shape.num_query_groups, -1, *rows.shape[1:])  # [groups, (n + 2) d, ...]
    parts_of_group = torch.split(grouped, _widths(entry, shape), 1)
    return [(name, part.flatten(0, 1)) for name, part in zip(entry.hf, parts_of_group, strict=True)]


def whole_tensors(tensors: Iterable[tuple[str, Tensor]], shape: ModelShape) -> Iterator[tuple[str, Tensor]]:
    """Tensors as files have them: parts, all of which follow each other, put together; the others as they come."""
    whole: Tensor | None = None
    left = 0
    for name, tensor in tensors:
        of_all, expert = part_of(name)
        if expert is None:
            yield name, tensor
            continue
        if whole is None:
            whole, left = tensor.new_empty(shape.num_experts, *tensor.shape), shape.num_experts
        whole[expert] = tensor
        left -= 1
        if not left:
            yield of_all, whole
            whole = None


def _gate_and_up(entry: Entry, rank: int, size: int) -> list[tuple[str, slice]]:
    """Name and rows of a rank's gate, and of its up projection, which may be the second half of the same tensor."""
    whole = sum(rows for rows, _ in entry.shapes) // 2
    width, second = whole // size, 0 if len(entry.hf) == 2 else whole
    starts = ((entry.hf[0], rank * width), (entry.hf[-1], second + rank * width))
    return [(name, slice(start, start + width)) for name, start in starts]


def _interleave(
    entry: Entry, read: Callable[[str, slice, slice], Tensor], shape: ModelShape, first: int, last: int
) -> Tensor:
    """Rows of query groups first..last in Megatron's order: the group's query heads, its key, its value."""
    parts = []
    for name, width in zip(entry.hf, _widths(entry, shape), strict=True):
        rows = read(name, slice(first * width, last * width), slice(None))
        parts.append(rows.view(last - first, width, *rows.shape[1:]))
    return torch.cat(parts, dim=1).flatten(0, 1)


def _head_by_head(
    entry: Entry, read: Callable[[str, slice, slice], Tensor], shape: ModelShape, rank: int, size: int
) -> Tensor:
    """A rank's heads of a layer with a state: of each its query, key and values, which lie apart in the tensor."""
    heads, first, found = _states(shape).key_heads // size, 0, []
    for width in _states(shape).mixed:
        start = first + rank * width // size
        rows = read(entry.hf[0], slice(start, start + width // size), slice(None))
        found.append(torch.unflatten(rows, 0, (heads, -1)))
        first += width
    return torch.cat(found, 1).flatten(0, 1)


def _part_by_part(rows: Tensor, shape: ModelShape) -> Tensor:
    """The tensor of all heads' queries, keys and values of what has them head by head."""
    delta = _states(shape)
    by_head = torch.unflatten(rows, 0, (delta.key_heads, -1))
    parts = torch.split(by_head, [width // delta.key_heads for width in delta.mixed], 1)
    return torch.cat([part.flatten(0, 1) for part in parts])


def _states(shape: ModelShape) -> DeltaNet:
    assert shape.delta is not None
    return shape.delta


def _widths(entry: Entry, shape: ModelShape) -> list[int]:
    """Rows of query, key and value that belong to one group; those of query hold gates, too, where there are some."""
    return [whole[0] // shape.num_query_groups for whole in entry.shapes]


def _cat(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
