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
    return frozenset(name for name, weight in _of_layers(shape) if weight.fixed)


def matrices(shape: ModelShape) -> frozenset[str]:
    """Names of the weights that publishers keep in few bits: linear layers, but for embedding, output and routers."""
    return frozenset(name for name, weight in _of_layers(shape) if _is_matrix(weight))


def other_linears(shape: ModelShape) -> list[str]:
    """Names of the linear layers that are none of these, as modules."""
    routers = [name for name, weight in _of_layers(shape) if weight.part == "router" and not weight.fixed]
    return [name.removesuffix(".weight") for name in (*routers, "lm_head.weight")]


def _is_matrix(weight: Weight) -> bool:
    return weight.part in ("attention", "feed-forward") and all(len(size) == 2 for size in weight.shapes)


def _of_layers(shape: ModelShape) -> Iterator[tuple[str, Weight]]:
    """Each HuggingFace tensor of the layers, with the line of the table that it is of."""
    for layer in range(shape.num_layers):
        for weight in families()[shape.architecture].layer(shape, layer):
            for expert in range(shape.num_experts if weight.of_expert else 1):
                yield from ((f"model.layers.{layer}.{name.format(expert=expert)}", weight) for name in weight.hf)


def is_carried(shape: ModelShape, name: str) -> bool:
    """Whether a tensor is none of the model's, but one that is handed on as it is."""
    return name.startswith(families()[shape.architecture].carried(shape))


def _tensors(weight: Weight, begin: str = "", expert: int = 0) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, size in zip(weight.hf, weight.shapes, strict=True):
        yield begin + name.format(expert=expert), size
