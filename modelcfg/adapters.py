"""Low-rank adapters of a model: which linear layers may have one, and what it holds. Read from the family's table.

Megatron holds query, key and value as one layer, and gate and up as another; each of them has an adapter of its own, as
HuggingFace and PEFT have it. Where the layer is cut over tensor-parallel ranks, one side of the adapter is, too: A with
the layer's columns, or B with its rows. Source: LoRA, arXiv:2106.09685. Left out: adapters of embedding, output layer
and experts. Legend: I inputs and O outputs of a linear layer, r rank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from modelcfg.shape import ModelShape
from modelcfg.shards import made_at
from modelcfg.stages import ONE_STAGE, Stages
from modelcfg.table import layer_weights
from modelcfg.weights import Kind, Weight, part_of

ALL_LINEAR = "all-linear"
ADAPTERS = ".adapters."  # in the names of their parameters
SIDES = ("lora_A", "lora_B")
PARTS = ("attention", "feed-forward")


@dataclass(frozen=True)
class Adapted:
    """One of Megatron's linear layers, and which of the projections in it have an adapter.

    Its rows are `groups` times those of the projections, one after the other, `widths` of each.

    Attributes:
        local: the layer's name within a decoder layer.
        hf: HuggingFace's names of the projections in it, within a decoder layer.
        chosen: places of those with an adapter.
        kind: how the layer is cut over tensor-parallel ranks.
    """

    local: str
    hf: tuple[str, ...]
    inputs: int
    widths: tuple[int, ...]
    groups: int
    chosen: tuple[int, ...]
    kind: Kind

    def on_rank(self, tensor_parallel: int) -> Adapted:
        """The same as one of the tensor-parallel ranks has it."""
        if self.kind == "replicated":
            return self
        if self.kind == "columns":
            return replace(self, inputs=self.inputs // tensor_parallel)
        if self.kind == "qkv":
            return replace(self, groups=self.groups // tensor_parallel)
        return replace(self, widths=tuple(width // tensor_parallel for width in self.widths))

    @property
    def cuts(self) -> tuple[Kind, Kind]:
        """How A and B are cut."""
        if self.kind == "columns":
            return "columns", "replicated"
        if self.kind in ("replicated", "by_head") or (self.kind == "gate_up" and len(self.hf) == 1):
            return "replicated", self.kind
        return "replicated", "rows"

    @property
    def largest_rank(self) -> int:
        """Rank that what an adapter adds can have at most: the smaller of I and O, where it is largest."""
        return max(min(self.inputs, self.outputs(place)) for place in self.chosen)

    def outputs(self, place: int) -> int:
        """O of the projection at a place."""
        return self.widths[place] * self.groups

    def name(self, place: int) -> str:
        """What PEFT calls the projection at a place among targets."""
        return short(self.hf[place])

    def shapes(self, rank: int) -> Iterator[tuple[str, str, tuple[int, int], Kind]]:
        """(Megatron's name, HuggingFace's within a layer, shape, cut) of each adapter's A, [r, I], and B, [O, r]."""
        for place in self.chosen:
            whole = ((rank, self.inputs), (self.outputs(place), rank))
            for side, shape, cut in zip(SIDES, whole, self.cuts, strict=True):
                local = f"{self.local}{ADAPTERS}{self.name(place)}.{side}.weight"
                yield local, f"{self.hf[place]}.{side}.weight", shape, cut


def short(hf: str) -> str:
    """`q_proj` of `self_attn.q_proj`."""
    return hf.rpartition(".")[2]


def possible_targets(shape: ModelShape) -> list[str]:
    """Names of the projections that may have an adapter, in the order of the model."""
    return list(_possible_targets(shape))


@lru_cache(maxsize=256)  # a search for a layout asks thousands of times, once for each layer
def _possible_targets(shape: ModelShape) -> tuple[str, ...]:
    of_experts = expert_targets(shape)
    tables = (_lines(shape, layer) for layer in range(shape.num_layers))
    names = dict.fromkeys(short(hf) for table in tables for weight in table for hf in _modules(weight))
    return tuple(name for name in names if name not in of_experts)


def expert_targets(shape: ModelShape) -> set[str]:
    """Names of the projections that experts have, which a target cannot tell from those of dense layers."""
    table = layer_weights(shape, shape.num_layers - 1)
    matrices = (weight for weight in table if weight.of_expert and len(weight.shapes[0]) == 2)
    return {short(hf) for weight in matrices for hf in _modules(weight)}


def adapted_layers(shape: ModelShape, layer: int, targets: Collection[str]) -> list[Adapted]:
    """What of a decoder layer has adapters, in the order in which Megatron makes it."""
    chosen = possible_targets(shape) if ALL_LINEAR in targets else targets
    found = [_adapted(shape, weight, chosen) for weight in sorted(_lines(shape, layer), key=made_at)]
    return [one for one in found if one.chosen]


@lru_cache(maxsize=256)  # likewise
def largest_ranks(shape: ModelShape, targets: tuple[str, ...]) -> tuple[int, ...]:
    """The rank, for each decoder layer, above which its adapters could add nothing more; 0: it has none."""
    adapted = (adapted_layers(shape, layer, targets) for layer in range(shape.num_layers))
    return tuple(max((one.largest_rank for one in layer), default=0) for layer in adapted)


def adapter_parameters(
    shape: ModelShape,
    rank: int,
    targets: Collection[str],
    tensor_parallel: int = 1,
    stages: Stages = ONE_STAGE,
    stage: int = 0,
) -> dict[str, int]:
    """Elements of every parameter of the adapters on one trainer rank, by name and in the order of the model."""
    return {
        f"decoder.layers.{index}.{local}": rows * columns
        for index, layer in enumerate(stages.layers(shape.num_layers)[stage])
        for one in adapted_layers(shape, layer, targets)
        for local, _, (rows, columns), _ in one.on_rank(tensor_parallel).shapes(rank)
    }


def _lines(shape: ModelShape, layer: int) -> list[Weight]:
    """The linear layers of the table, experts' aside."""
    table = layer_weights(shape, layer)
    linear = [one for one in table if one.part in PARTS and not one.fixed and len(one.shapes[0]) == 2]
    return [one for one in linear if not one.of_expert]


def _modules(weight: Weight) -> list[str]:
    return [part_of(hf.format(expert=0))[0].removesuffix(".weight") for hf in weight.hf]


def _adapted(shape: ModelShape, weight: Weight, targets: Collection[str]) -> Adapted:
    modules = tuple(_modules(weight))
    groups = shape.num_query_groups if weight.kind == "qkv" else 1
    widths = tuple(rows // groups for rows, _ in weight.shapes)
    chosen = tuple(place for place, hf in enumerate(modules) if short(hf) in targets)
    local = weight.local.removesuffix(".weight")
    return Adapted(local, modules, weight.shapes[0][1], widths, groups, chosen, weight.kind)
