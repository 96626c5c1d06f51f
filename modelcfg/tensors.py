"""HuggingFace's tensors of a whole model, counted out from its family's table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from modelcfg.families import families
from modelcfg.shape import ModelShape
from modelcfg.table import after_layers, before_layers, layer_prefix, layer_weights
from modelcfg.weights import Weight, part_of


def hf_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and whole shape of every tensor that a checkpoint of this shape holds; a tied output layer is none."""
    found = dict(_tensors(before_layers(shape)))
    for layer in range(shape.num_layers):
        for weight in layer_weights(shape, layer):
            for expert in range(shape.num_experts if weight.of_expert and not weight.is_part else 1):
                found |= _tensors(weight, layer_prefix(shape, layer), expert, shape.num_experts)
    for weight in after_layers(shape):
        found |= _tensors(weight)
    return found


class Stack(NamedTuple):
    """A tensor with those of all experts of a layer: its shape, and name and shape of each, one after the other."""

    shape: tuple[int, ...]
    parts: tuple[tuple[str, tuple[int, ...]], ...]


def stacks(shape: ModelShape) -> dict[str, Stack]:
    """Tensors by name that files may hold in the place of those that experts have one by one."""
    found = {}
    for layer in range(shape.num_layers):
        begin = layer_prefix(shape, layer)
        for weight in layer_weights(shape, layer):
            if weight.stacked:
                experts = range(shape.num_experts)
                parts = tuple(part for expert in experts for part in _tensors(weight, begin, expert))
                rows, columns = sum(size[0] for size in weight.shapes), weight.shapes[0][1]
                found[begin + weight.stacked] = Stack((len(experts), rows, columns), parts)
    return found


@lru_cache(maxsize=256)  # as the next
def matrix_elements(shape: ModelShape) -> int:
    """Numbers in all of `matrices`."""
    if not matrices(shape):
        return 0
    tables = (layer_weights(shape, layer) for layer in range(shape.num_layers))
    lines = (weight for table in tables for weight in filter(is_matrix, table))
    return sum(weight.numel * (shape.num_experts if weight.of_expert else 1) for weight in lines)


@lru_cache(maxsize=256)
def matrix_rows(shape: ModelShape, ranks: int = 1) -> int:
    """Rows of all of `matrices` on one of an engine's ranks, over which some are cut by rows and others by columns."""
    if not matrices(shape):
        return 0
    tables = (layer_weights(shape, layer) for layer in range(shape.num_layers))
    lines = (weight for table in tables for weight in filter(is_matrix, table))
    return sum(_rows(weight, ranks) * (shape.num_experts if weight.of_expert else 1) for weight in lines)


def _rows(weight: Weight, ranks: int) -> int:
    whole = sum(size[0] for size in weight.shapes)
    return whole if weight.kind in ("columns", "replicated") else whole // ranks


@lru_cache(maxsize=256)  # a search for a layout asks thousands of times
def largest_tensor(shape: ModelShape) -> int:
    """Elements of the largest tensor of a checkpoint."""
    tables = (layer_weights(shape, layer) for layer in range(shape.num_layers))
    lines = (before_layers(shape), *after_layers(shape), *(weight for table in tables for weight in table))
    return max(max(map(prod, one.shapes)) * (shape.num_experts if one.is_part else 1) for one in lines)


def fixed_tensors(shape: ModelShape) -> frozenset[str]:
    """Names of those among them that are float32 whatever the model's precision."""
    return frozenset(name for name, weight in _of_layers(shape) if weight.fixed)


def matrices(shape: ModelShape) -> frozenset[str]:
    """Names of the weights that publishers keep in few bits: linear layers, but for embedding, output, routers, and
    what makes a few numbers for each head of a state. Of a family whose files have all experts in one tensor none, as
    publishers have other ways for these.
    """
    table = list(_of_layers(shape))
    if any(weight.is_part for _, weight in table):
        return frozenset()
    return frozenset(name for name, weight in table if is_matrix(weight))


def other_linears(shape: ModelShape) -> list[str]:
    """Names of the linear layers that are none of these, as modules, and what the names of all modules begin with that
    files hold beside the model.
    """
    kept = [name for name, weight in _of_layers(shape) if _stays_whole(weight)]
    beside = [begin.removesuffix(".") for begin in families()[shape.architecture].carried(shape)]
    return [*(name.removesuffix(".weight") for name in (*kept, "lm_head.weight")), *beside]


def is_matrix(weight: Weight) -> bool:
    """Whether a line of the table is of weights that publishers keep in few bits."""
    linear = weight.part in ("attention", "feed-forward") and all(len(size) == 2 for size in weight.shapes)
    return linear and not weight.unpacked


def _stays_whole(weight: Weight) -> bool:
    """Whether it is of a linear layer all the same."""
    return weight.unpacked or (weight.part == "router" and not weight.fixed)


def _of_layers(shape: ModelShape) -> Iterator[tuple[str, Weight]]:
    """Each HuggingFace tensor of the layers, with the line of the table that it is of."""
    for layer in range(shape.num_layers):
        for weight in layer_weights(shape, layer):
            for expert in range(shape.num_experts if weight.of_expert else 1):
                yield from ((layer_prefix(shape, layer) + name.format(expert=expert), weight) for name in weight.hf)


def is_carried(shape: ModelShape, name: str) -> bool:
    """Whether a tensor is none of the model's, but one that is handed on as it is."""
    return name.startswith(families()[shape.architecture].carried(shape))


def _tensors(
    weight: Weight, begin: str = "", expert: int = 0, num_experts: int = 0
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, size in zip(weight.hf, weight.shapes, strict=True):
        whole, _ = part_of(name.format(expert=expert))
        yield begin + whole, (num_experts, *size) if weight.is_part else size
