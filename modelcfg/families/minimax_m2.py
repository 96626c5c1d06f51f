"""MiniMax-M2 to M2.5: experts behind a sigmoid router in every layer, norms over all heads of query and of key at once.

`rotary_dim` channels of each head are turned by positions, its two halves against each other. SGLang reads that key,
`use_qk_norm`, `use_routing_bias` and `scoring_func`, and computes another model where they are left out; transformers
reads none of them. So a file has to say them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.family import HEAD_DIM, Config, Family, or_default
from modelcfg.weights import EXPERTS, Weight, attention, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape

BLOCK = "block_sparse_moe"


def _layer(shape: ModelShape, _: int) -> list[Weight]:
    hidden, width, experts = shape.hidden_size, shape.ffn_hidden_size, shape.num_experts
    local, hf = f"mlp.{EXPERTS}{{place}}", f"{BLOCK}.experts.{{expert}}"
    router, bias = (f"{BLOCK}.gate.weight",), (f"{BLOCK}.e_score_correction_bias",)
    gate_up, down = (f"{hf}.w1.weight", f"{hf}.w3.weight"), (f"{hf}.w2.weight",)
    up_shape, down_shape = (width, hidden), (hidden, width)
    return [
        norm("input_layernorm", "input_layernorm", hidden),
        *attention(shape),
        norm("pre_mlp_layernorm", "post_attention_layernorm", hidden),
        Weight("mlp.router.weight", router, "replicated", ((experts, hidden),), "router"),
        Weight("mlp.router.expert_bias", bias, "replicated", ((experts,),), "router", fixed=True),
        Weight(f"{local}.linear_fc1.weight", gate_up, "gate_up", (up_shape, up_shape), "feed-forward"),
        Weight(f"{local}.linear_fc2.weight", down, "columns", (down_shape,), "feed-forward"),
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
)
