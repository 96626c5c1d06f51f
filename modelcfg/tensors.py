"""HuggingFace's tensors of a whole model, counted out from its family's table."""

from __future__ import annotations

from collections.abc import Iterator

from modelcfg.families import families
from modelcfg.shape import ModelShape
from modelcfg.weights import Weight, after_layers, before_layers


def hf_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and whole shape of every tensor that a checkpoint of this shape holds; a tied output layer is none."""
    found = dict(_tensors(before_layers(shape)))
    for layer in range(shape.num_layers):
        for weight in families()[shape.architecture].layer(shape, layer):
            for expert in range(shape.num_experts if weight.of_expert else 1):
                found |= _tensors(weight, f"model.layers.{layer}.", expert)
    for weight in after_layers(shape):
        found |= _tensors(weight)
    return found


def fixed_tensors(shape: ModelShape) -> frozenset[str]:
    """Names of those among them that are float32 whatever the model's precision."""
    tables = ((layer, families()[shape.architecture].layer(shape, layer)) for layer in range(shape.num_layers))
    return frozenset(f"model.layers.{layer}.{w.hf[0]}" for layer, table in tables for w in table if w.fixed)


def is_carried(shape: ModelShape, name: str) -> bool:
    """Whether a tensor is none of the model's, but one that is handed on as it is."""
    return name.startswith(families()[shape.architecture].carried(shape))


def _tensors(weight: Weight, begin: str = "", expert: int = 0) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, size in zip(weight.hf, weight.shapes, strict=True):
        yield begin + name.format(expert=expert), size
