"""Qwen3-Next: gated delta nets in three of four layers, gated attention in the others, experts with a gated shared one.

Weights of norms are what is added to 1, but for the norm of what is read from a state. The layer for predicting several
tokens (`mtp.`) is carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.family import Config, Family, or_default
from modelcfg.weights import Weight, attention, delta_net, experts, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape

# where config.json does not say, as transformers has it
HEAD_DIM, ROTARY_FRACTION, ATTENTION_EVERY = 256, 0.25, 4
DELTA = {
    "key_heads": ("linear_num_key_heads", 16),
    "value_heads": ("linear_num_value_heads", 32),
    "key_dim": ("linear_key_head_dim", 128),
    "value_dim": ("linear_value_head_dim", 128),
    "taps": ("linear_conv_kernel_dim", 4),
}
KINDS = ("linear_attention", "full_attention")


def mixing(shape: ModelShape, layer: int) -> list[Weight]:
    """What a layer has ahead of its feed-forward or experts."""
    delta = shape.delta if shape.has_state(layer) else None
    return [
        norm("input_layernorm", "input_layernorm", shape.hidden_size),
        *(attention(shape) if delta is None else delta_net(shape, delta)),
        norm("pre_mlp_layernorm", "post_attention_layernorm", shape.hidden_size),
    ]


def _layer(shape: ModelShape, layer: int) -> list[Weight]:
    return [*mixing(shape, layer), *experts(shape, shared="mlp.shared_expert")]


def attention_every(config: Config) -> int:
    """Number by the list of the layers' kinds, or as it is said: SGLang reads this, transformers 5 writes that."""
    kinds = config.get("layer_types")
    if kinds and KINDS[1] in kinds:
        return int(kinds.index(KINDS[1])) + 1
    return int(or_default(config, "full_attention_interval", ATTENTION_EVERY))


def is_other_order(config: Config) -> bool:
    """Whether layers with attention do not come at equal distances."""
    every = attention_every(config)
    kinds = [KINDS[(layer + 1) % every == 0] for layer in range(config["num_hidden_layers"])]
    return (config.get("layer_types") or kinds) != kinds


def _rotary_fraction(config: Config) -> float:
    rope = {**config, **(config.get("rope_parameters") or {})}
    return float(or_default(rope, "partial_rotary_factor", ROTARY_FRACTION))


def mixing_fields(config: Config) -> dict[str, Any]:
    """What sets these layers apart from Qwen3's ahead of their experts, sizes of states among it."""
    delta = {name: or_default(config, key, default) for name, (key, default) in DELTA.items()}
    delta["attention_every"] = attention_every(config)
    return {"centred_norms": True, "attention_gate": True, "delta": delta}


def layer_fields(config: Config) -> dict[str, Any]:
    """What sets these layers apart from Qwen3's."""
    return {**mixing_fields(config), "shared_gate": True}


def attention_fields(config: Config) -> dict[str, Any]:
    """Fields of the layers with attention: heads, their norms, and how far positions turn them."""
    return {
        "head_dim": or_default(config, "head_dim", HEAD_DIM),
        "qk_norm": True,
        "rotary_fraction": _rotary_fraction(config),
    }


def expert_fields(config: Config) -> dict[str, Any]:
    """Experts, and the feed-forward of all tokens beside them."""
    return {
        "ffn_hidden_size": config["moe_intermediate_size"],
        "num_experts": config["num_experts"],
        "experts_per_token": config["num_experts_per_tok"],
        "shared_ffn_hidden_size": config["shared_expert_intermediate_size"],
    }


def _fields(config: Config) -> dict[str, Any]:
    return {**layer_fields(config), **attention_fields(config), **expert_fields(config)}


def refused_orders(config: Config) -> dict[str, bool]:
    """Other orders of layers; heads that are turned in part are not refused."""
    every = attention_every(config)
    return {
        "partial_rotary_factor": False,
        "layer_types": is_other_order(config),
        "full_attention_interval": or_default(config, "full_attention_interval", every) != every,
    }


def refused_experts(config: Config) -> dict[str, bool]:
    """Layers without experts, probabilities that do not sum to 1; SGLang never ties."""
    return {
        "num_experts": config["num_experts"] == 0,
        "shared_expert_intermediate_size": config["shared_expert_intermediate_size"] == 0,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "norm_topk_prob": not or_default(config, "norm_topk_prob", True),
        "decoder_sparse_step": or_default(config, "decoder_sparse_step", 1) != 1,
        "mlp_only_layers": bool(config.get("mlp_only_layers")),
    }


def _refused(config: Config) -> dict[str, bool]:
    return {**refused_orders(config), **refused_experts(config)}


def engine_config(shape: ModelShape) -> dict[str, Any]:
    """What transformers 5 leaves out of the files that it writes."""
    return {"full_attention_interval": shape.delta.attention_every} if shape.delta is not None else {}


def _carried(_: ModelShape) -> tuple[str, ...]:
    return ("mtp.",)


FAMILY = Family(
    "qwen3_next",
    "Qwen3NextForCausalLM",
    layer=_layer,
    fields=_fields,
    refused=_refused,
    required=("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"),
    renamed=(("num_experts", "num_local_experts"),),
    carried=_carried,
    engine_config=engine_config,
    not_on_cpus="SGLang computes its delta nets by kernels for GPUs, or by those of its own build for CPUs",
)
