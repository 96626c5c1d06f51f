"""Matrices in blocks, as an engine's ranks have them: whether blocks end where a rank's part of a projection does.

An engine holds query, key and value as one matrix, and gate and up as another; each rank has rows of every one of them,
or columns. A block that begins in one part and ends in the next would have a factor for both. What lies last in a
matrix that all ranks have whole may end within a block: what keys and values are made of, with latent attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

from modelcfg.shape import ModelShape
from modelcfg.table import layer_prefix, layer_weights
from modelcfg.tensors import is_matrix
from modelcfg.weights import Weight

LAST = "self_attention.linear_kv_down.weight"  # of a matrix that all ranks have whole


class Cut(NamedTuple):
    """Ranks of an engine that share what is outside experts, those that share each expert, and the groups of ranks that
    each have the whole attention.
    """

    ranks: int
    of_an_expert: int
    attention_groups: int = 1

    def of(self, weight: Weight) -> int:
        """Ranks that share a weight."""
        if weight.of_expert:
            return self.of_an_expert
        return max(1, self.ranks // self.attention_groups) if weight.part == "attention" else self.ranks


class RankPart(NamedTuple):
    """The part of a projection that one of an engine's ranks has. `is_last`: nothing lies behind its rows."""

    name: str
    rows: int
    columns: int
    is_last: bool

    def ends_within(self, block: int) -> bool:
        """Whether a block would have numbers of another part, too, or of another rank's."""
        return bool(self.columns % block or (self.rows % block and not self.is_last))


def uncut_blocks(shape: ModelShape, cut: Cut, block: int) -> RankPart | None:
    """The first part that ends within a block and must not; None: there is none."""
    parts = (part for layer in range(shape.num_layers) for part in _parts(shape, layer, cut))
    return next((part for part in parts if part.ends_within(block)), None)


def _parts(shape: ModelShape, layer: int, cut: Cut) -> Iterator[RankPart]:
    for weight in filter(is_matrix, layer_weights(shape, layer)):
        for place, name in enumerate(weight.hf):
            whole = layer_prefix(shape, layer) + name.format(expert=0)
            yield RankPart(whole, *_size(shape, weight, place, cut.of(weight)), weight.local == LAST)


def _size(shape: ModelShape, weight: Weight, place: int, ranks: int) -> tuple[int, int]:
    rows, columns = weight.shapes[place]
    if weight.kind == "replicated":
        return rows, columns
    if weight.kind == "columns":
        return rows, columns // ranks
    if weight.kind == "qkv" and place:  # of fewer groups than ranks each has one
        return max(rows // ranks, shape.head_dim), columns
    if weight.side_by_side:
        return gcd(*weight.side_by_side) // ranks, columns
    both = weight.kind == "gate_up" and len(weight.hf) == 1  # gate above up
    return rows // (2 if both else 1) // ranks, columns
