"""How the parameters of a shape are shared out over trainer ranks, counted from the shape alone."""

from __future__ import annotations

from modelcfg.shape import ModelShape

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
EXPERTS = "experts.local_experts."  # in the names of their parameters


def rank_parameters(
    shape: ModelShape, tensor_parallel: int = 1, pipeline_parallel: int = 1, stage: int = 0, expert_parallel: int = 1
) -> dict[str, int]:
    """Elements of every parameter of one trainer rank, by Megatron's name and in the order in which it makes them.

    The vocabulary is rounded up so that all tensor-parallel ranks have equally many rows; norms are on every rank; with
    tied embeddings the last of several stages holds a second copy.
    """
    is_last = stage == pipeline_parallel - 1
    vocabulary = -(-shape.vocab_size // tensor_parallel) * shape.hidden_size
    found = {EMBEDDING: vocabulary} if stage == 0 else {}
    layer = _layer(shape, tensor_parallel) | _feed_forward(shape, tensor_parallel, expert_parallel)
    for index in range(shape.num_layers // pipeline_parallel):
        found |= {f"decoder.layers.{index}.{name}": count for name, count in layer.items()}
    if is_last:
        found["decoder.final_layernorm.weight"] = shape.hidden_size
    if is_last and (pipeline_parallel > 1 or not shape.tied_embeddings):
        found[OUTPUT] = vocabulary
    return found


def _layer(shape: ModelShape, tensor_parallel: int) -> dict[str, int]:
    hidden = shape.hidden_size
    projected = (shape.query_size + 2 * shape.key_value_size) // tensor_parallel
    return {
        "input_layernorm.weight": hidden,
        "self_attention.linear_proj.weight": hidden * shape.query_size // tensor_parallel,
        "self_attention.linear_qkv.weight": projected * hidden,
        **({"self_attention.linear_qkv.bias": projected} if shape.qkv_bias else {}),
        **({f"self_attention.{x}_layernorm.weight": shape.head_dim for x in "qk"} if shape.qk_norm else {}),
        "pre_mlp_layernorm.weight": hidden,
    }


def _feed_forward(shape: ModelShape, tensor_parallel: int, expert_parallel: int) -> dict[str, int]:
    width = shape.ffn_hidden_size // tensor_parallel * shape.hidden_size
    if not shape.num_experts:
        return {"mlp.linear_fc1.weight": 2 * width, "mlp.linear_fc2.weight": width}
    found = {"mlp.router.weight": shape.num_experts * shape.hidden_size}
    for expert in range(shape.num_experts // expert_parallel):
        found[f"mlp.{EXPERTS}{expert}.linear_fc1.weight"] = 2 * width
        found[f"mlp.{EXPERTS}{expert}.linear_fc2.weight"] = width
    return found
