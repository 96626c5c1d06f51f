"""Experts behind a sigmoid router, as config.json has them of DeepSeek-V3, GLM-4.5, Moonlight and Kimi-K2.

Defaults where a file does not say are those of transformers' GLM-4.5.
"""

from __future__ import annotations

from typing import Any

from modelcfg.family import Config, or_default

REQUIRED_EXPERTS = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
RENAMED_EXPERTS = (("n_routed_experts", "num_local_experts"),)


def expert_fields(config: Config) -> dict[str, Any]:
    """Fields of the shape for the experts, those of all tokens and the dense layers at first."""
    width, dense = config["moe_intermediate_size"], or_default(config, "first_k_dense_replace", 1)
    return {
        "ffn_hidden_size": width,
        "num_experts": config["n_routed_experts"],
        "experts_per_token": config["num_experts_per_tok"],
        "router": {
            "groups": or_default(config, "n_group", 1),
            "groups_per_token": or_default(config, "topk_group", 1),
            "scale": or_default(config, "routed_scaling_factor", 1.0),
        },
        "shared_ffn_hidden_size": width * or_default(config, "n_shared_experts", 1),
        "dense_layers": dense,
        "dense_ffn_hidden_size": config["intermediate_size"] if dense else 0,
    }


def refused_experts(config: Config) -> dict[str, bool]:
    """Weights that do not sum to the scale, experts in some layers only, other routers; SGLang never ties."""
    return {
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "norm_topk_prob": not or_default(config, "norm_topk_prob", True),
        "moe_layer_freq": or_default(config, "moe_layer_freq", 1) != 1,
        "scoring_func": or_default(config, "scoring_func", "sigmoid") != "sigmoid",
        "topk_method": or_default(config, "topk_method", "noaux_tc") != "noaux_tc",
    }
