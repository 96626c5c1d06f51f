"""How the parameters of a shape are shared out over trainer ranks, counted from its family's table."""

from __future__ import annotations

from itertools import groupby

from modelcfg.shape import ModelShape
from modelcfg.stages import ONE_STAGE, Stages
from modelcfg.table import after_layers, before_layers, layer_weights
from modelcfg.weights import EMBEDDING, EXPERTS, OUTPUT, SHARED, Weight

__all__ = ["EMBEDDING", "EXPERTS", "OUTPUT", "rank_parameters", "value_parameters"]

# the order in which Megatron makes the modules of a layer, as far as it is not that of the table
MADE = (
    "input_layernorm.",
    "self_attention.core_attention.",
    "self_attention.linear_proj.",
    "self_attention.linear_qkv.",
    "self_attention.",
    "pre_mlp_layernorm.",
    "mlp.",
    f"mlp.{EXPERTS}",
    SHARED,
)


def rank_parameters(
    shape: ModelShape,
    tensor_parallel: int = 1,
    stages: Stages = ONE_STAGE,
    stage: int = 0,
    expert_parallel: int = 1,
    expert_tensor_parallel: int = 1,
) -> dict[str, int]:
    """Elements of every parameter of one trainer rank, by Megatron's name and in the order in which it makes them.

    The vocabulary is rounded up so that all tensor-parallel ranks have equally many rows; norms are on every rank; with
    tied embeddings the last of several stages holds a second copy.
    """
    is_last = stage == stages.number - 1
    embedding = before_layers(shape)
    found = {EMBEDDING: embedding.numel_of_rank(tensor_parallel)} if stage == 0 else {}
    for index, number in enumerate(stages.layers(shape.num_layers)[stage]):
        layer = _layer(shape, number, tensor_parallel, expert_parallel, expert_tensor_parallel)
        found |= {f"decoder.layers.{index}.{name}": count for name, count in layer.items()}
    if is_last:
        found |= {weight.local: weight.numel_of_rank(tensor_parallel) for weight in after_layers(shape)}
    if is_last and stages.number > 1 and shape.tied_embeddings:
        found[OUTPUT] = embedding.numel_of_rank(tensor_parallel)
    return found


def value_parameters(
    shape: ModelShape,
    tensor_parallel: int = 1,
    stages: Stages = ONE_STAGE,
    stage: int = 0,
    expert_parallel: int = 1,
    expert_tensor_parallel: int = 1,
) -> dict[str, int]:
    """The same of a value model of the shape, whose output layer is one row, on every rank of the last stage."""
    untied = shape.model_copy(update={"tied_embeddings": False})
    found = rank_parameters(untied, tensor_parallel, stages, stage, expert_parallel, expert_tensor_parallel)
    return found | ({OUTPUT: shape.hidden_size} if OUTPUT in found else {})


def _layer(
    shape: ModelShape, layer: int, tensor_parallel: int, expert_parallel: int, expert_tensor_parallel: int
) -> dict[str, int]:
    table = sorted((w for w in layer_weights(shape, layer) if not w.fixed), key=made_at)
    found: dict[str, int] = {}
    for of_expert, weights in groupby(table, key=lambda weight: weight.of_expert):
        held, ranks = list(weights), expert_tensor_parallel if of_expert else tensor_parallel
        for place in range(shape.num_experts // expert_parallel if of_expert else 1):
            found |= {w.local.format(place=place): w.numel_of_rank(ranks) for w in held}
    return found


def made_at(weight: Weight) -> int:
    """Place of the parameter's module among those of a layer."""
    fitting = [place for place, start in enumerate(MADE) if weight.local.startswith(start)]
    return max(fitting, key=lambda place: len(MADE[place]))
