"""How many parameters a shape has, counted from its family's table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from modelcfg.shape import ModelShape
from modelcfg.table import after_layers, before_layers, layer_weights


def parameter_parts(shape: ModelShape) -> dict[str, int]:
    """Parameters by part of the model, over all layers. A tied output layer counts as 0."""
    return dict(_parts(shape))


@lru_cache(maxsize=256)  # a search for a layout asks thousands of times
def _parts(shape: ModelShape) -> Mapping[str, int]:
    counts = dict.fromkeys(("embedding", "attention", "router", "feed-forward", "norms", "output"), 0)
    for weight in (before_layers(shape), *after_layers(shape)):
        counts[weight.part] += weight.numel
    for layer in range(shape.num_layers):
        for weight in layer_weights(shape, layer):
            if not weight.fixed:
                counts[weight.part] += weight.numel * (shape.num_experts if weight.of_expert else 1)
    return {part: count for part, count in counts.items() if count or part != "router"}


def num_parameters(shape: ModelShape) -> int:
    """All parameters; a tied embedding counts once."""
    return sum(parameter_parts(shape).values())


def active_parameters(shape: ModelShape) -> int:
    """Number of parameters that compute a token: all, but among the experts only the chosen ones."""
    idle = shape.num_experts - shape.experts_per_token
    tables = (layer_weights(shape, number) for number in range(shape.num_layers))
    return num_parameters(shape) - idle * sum(weight.numel for table in tables for weight in table if weight.of_expert)
