"""MiniMax-M2 to M2.5: experts behind a sigmoid router in every layer, norms over all heads of query and of key at once.

`rotary_dim` channels of each head are turned by positions, its two halves against each other. SGLang reads that key,
`use_qk_norm`, `use_routing_bias` and `scoring_func`, and computes another model where they are left out; transformers
reads none of them. So a file has to say them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.family import HEAD_DIM, Config, Family, or_default
from modelcfg.weights import Weight, attention, experts, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape


def _layer(shape: ModelShape, _: int) -> list[Weight]:
    return [
        norm("input_layernorm", "input_layernorm", shape.hidden_size),
        *attention(shape),
        norm("pre_mlp_layernorm", "post_attention_layernorm", shape.hidden_size),
        *experts(shape, "block_sparse_moe", "e_score_correction_bias", ("w1", "w3", "w2")),
    ]


def _head_dim(config: Config) -> int:
    return int(or_default(config, "head_dim", HEAD_DIM))


def _fields(config: Config) -> dict[str, Any]:
    modules = or_default(config, "num_mtp_modules", 0) if config.get("use_mtp") else 0
    return {
        "head_dim": _head_dim(config),
        "qk_norm": True,
        "qk_norm_whole": True,
        "rotary_fraction": config["rotary_dim"] / _head_dim(config),
        "num_experts": config["num_local_experts"],
        "experts_per_token": config["num_experts_per_tok"],
        "router": {},
        "carried_layers": modules * or_default(config, "mtp_transformer_layers", 1),
    }


def _refused(config: Config) -> dict[str, bool]:
    """Other routers and norms, layers with linear attention, and a part of the head that transformers turns instead."""
    rope = {**config, **(config.get("rope_parameters") or {})}
    turned = or_default(rope, "partial_rotary_factor", config["rotary_dim"] / _head_dim(config))
    return {
        "partial_rotary_factor": turned * _head_dim(config) != config["rotary_dim"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "use_qk_norm": not config.get("use_qk_norm"),
        "qk_norm_type": or_default(config, "qk_norm_type", "per_layer") != "per_layer",
        "use_routing_bias": not config.get("use_routing_bias"),
        "scoring_func": config.get("scoring_func") != "sigmoid",
        "shared_intermediate_size": bool(config.get("shared_intermediate_size")),
        "attn_type_list": any(kind != 1 for kind in config.get("attn_type_list") or ()),
    }


FAMILY = Family(
    "minimax_m2",
    "MiniMaxM2ForCausalLM",
    layer=_layer,
    fields=_fields,
    refused=_refused,
    required=("num_local_experts", "num_experts_per_tok", "rotary_dim"),
    renamed=(("num_local_experts", "num_experts"),),
    tells_no_experts="the layers of its class in SGLang do not know their numbers",
)
