"""Qwen3 with experts in every layer, and no feed-forward beside them."""

from __future__ import annotations

from typing import Any

from modelcfg.families import qwen3
from modelcfg.family import Config, Family, or_default


def _fields(config: Config) -> dict[str, Any]:
    return qwen3.fields(config) | {
        "ffn_hidden_size": config["moe_intermediate_size"],
        "num_experts": config["num_experts"],
        "experts_per_token": config["num_experts_per_tok"],
    }


def _refused(config: Config) -> dict[str, bool]:
    """Layers without experts, probabilities that do not sum to 1, experts of every token; SGLang never ties."""
    return {
        "num_experts": config["num_experts"] == 0,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "norm_topk_prob": not config.get("norm_topk_prob"),
        "decoder_sparse_step": or_default(config, "decoder_sparse_step", 1) != 1,
        "mlp_only_layers": bool(config.get("mlp_only_layers")),
        **{key: bool(value) for key, value in config.items() if "shared_expert" in key},
    }


FAMILY = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    fields=_fields,
    refused=_refused,
    required=("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    renamed=(("num_experts", "num_local_experts"),),  # as transformers 5 writes it
)
