"""gpt-oss: experts alone in all layers, windows and sinks in attention, biases everywhere. Source: arXiv:2508.10925.

Every other layer's attention sees a window. Experts' activation is clamped, and files have all experts of a layer in
one tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.family import Config, Family, or_default
from modelcfg.weights import Weight, attention, experts_in_one, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape

# where config.json does not say, as transformers has it
HEAD_DIM, WINDOW, CLAMP = 64, 128, 7.0
KINDS = ("sliding_attention", "full_attention")
WHOLE_EVERY = len(KINDS)


def _layer(shape: ModelShape, _: int) -> list[Weight]:
    return [
        norm("input_layernorm", "input_layernorm", shape.hidden_size),
        *attention(shape),
        norm("pre_mlp_layernorm", "post_attention_layernorm", shape.hidden_size),
        *experts_in_one(shape),
    ]


def _kinds(layers: int) -> list[str]:
    return [KINDS[(layer + 1) % WHOLE_EVERY == 0] for layer in range(layers)]


def _fields(config: Config) -> dict[str, Any]:
    return {
        "head_dim": or_default(config, "head_dim", HEAD_DIM),
        "qkv_bias": True,
        "biases": True,
        "sinks": True,
        "window": {"size": or_default(config, "sliding_window", WINDOW), "whole_every": WHOLE_EVERY},
        "clamp": or_default(config, "swiglu_limit", CLAMP),
        "num_experts": config["num_local_experts"],
        "experts_per_token": config["num_experts_per_tok"],
    }


def _refused(config: Config) -> dict[str, bool]:
    """Other orders of layers, no biases, a clamp that transformers does not know, rotary settings unsaid, for which it
    has some of its own; SGLang never ties.
    """
    wanted = _kinds(config["num_hidden_layers"])
    return {
        "attention_bias": not or_default(config, "attention_bias", True),
        "layer_types": (config.get("layer_types") or wanted) != wanted,
        "rope_parameters": not (config.get("rope_parameters") or config.get("rope_scaling")),
        "swiglu_limit": or_default(config, "swiglu_limit", CLAMP) != CLAMP,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
    }


def _engine_config(shape: ModelShape) -> dict[str, Any]:
    """What transformers 5 leaves out of the files that it writes."""
    return {"swiglu_limit": shape.clamp}


FAMILY = Family(
    "gpt_oss",
    "GptOssForCausalLM",
    layer=_layer,
    fields=_fields,
    refused=_refused,
    required=("num_local_experts", "num_experts_per_tok"),
    renamed=(("num_local_experts", "num_experts"),),
    engine_config=_engine_config,
    not_on_cpus="SGLang computes attention with sinks by kernels for GPUs, or by those of its own build for CPUs",
)
