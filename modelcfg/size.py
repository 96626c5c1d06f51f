"""How many parameters a shape has, counted from the shape alone."""

from __future__ import annotations

from modelcfg.shape import ModelShape


def parameter_parts(shape: ModelShape) -> dict[str, int]:
    """Parameters by part of the model, over all layers. A tied output layer counts as 0."""
    embedding = shape.vocab_size * shape.hidden_size
    router = {"router": shape.num_layers * shape.num_experts * shape.hidden_size} if shape.num_experts else {}
    return {
        "embedding": embedding,
        "attention": shape.num_layers * _attention(shape),
        **router,
        "feed-forward": max(1, shape.num_experts) * shape.num_layers * 3 * shape.hidden_size * shape.ffn_hidden_size,
        "norms": (2 * shape.num_layers + 1) * shape.hidden_size,
        "output": 0 if shape.tied_embeddings else embedding,
    }


def num_parameters(shape: ModelShape) -> int:
    """All parameters; a tied embedding counts once."""
    return sum(parameter_parts(shape).values())


def active_parameters(shape: ModelShape) -> int:
    """Number of parameters that compute a token: all, but among the experts only the chosen ones."""
    if not shape.num_experts:
        return num_parameters(shape)
    parts = parameter_parts(shape)
    idle = parts["feed-forward"] // shape.num_experts * (shape.num_experts - shape.experts_per_token)
    return sum(parts.values()) - idle


def _attention(shape: ModelShape) -> int:
    """One layer: the four projections, the bias of three of them, the norms over query and key."""
    projected = shape.query_size + 2 * shape.key_value_size
    weights = shape.hidden_size * (projected + shape.query_size)
    bias = projected if shape.qkv_bias else 0
    norms = 2 * shape.head_dim if shape.qk_norm else 0
    return weights + bias + norms
