"""A shape from a HuggingFace `config.json`, and the comparison of the two.

Both spellings of the rotary settings are read: `rope_theta` with `rope_scaling` (transformers 4, and what is
published on the hub) and `rope_parameters` (transformers 5). A setting that the shape cannot express is refused, never
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from common.mistake import Wrong
from modelcfg.shape import Architecture, ModelShape, RopeScaling

ARCHITECTURES: dict[Architecture, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)
REQUIRED_OF_EXPERTS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
# Base and instruct checkpoints of one model are published with different limits (Qwen2.5-1.5B: 131072 and 32768), and
# no weight depends on the limit.
NOT_COMPARED = ("name", "hub", "max_position_embeddings")


class UnsupportedModelError(Wrong):
    """A `config.json` that describes no model this project can train."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, "a model that this project can train", remedy)


@dataclass(frozen=True)
class Mismatch:
    """One field in which a checkpoint differs from a shape. `found` is the checkpoint's value."""

    field: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.field}: found {self.found}, wanted {self.wanted}"


def from_hf(config: Mapping[str, Any], name: str = "custom") -> ModelShape:
    """The shape that a HuggingFace `config.json` describes.

    Raises:
        UnsupportedModelError: another architecture, a missing key, or a setting that a shape cannot express.
    """
    architecture = _architecture(config)
    if architecture == "qwen3_moe":  # transformers 5 writes num_local_experts
        config = {**config, "num_experts": _or_default(config, "num_experts", config.get("num_local_experts"))}
    required = REQUIRED + (REQUIRED_OF_EXPERTS if architecture == "qwen3_moe" else ())
    missing = [key for key in required if config.get(key) is None]
    if missing:
        raise UnsupportedModelError(f"a config.json without {', '.join(missing)}", "take the file from the publisher")
    _refuse_unsupported(config, architecture)
    try:
        return _shape(config, architecture, name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"a config.json that contradicts itself ({where or 'shape'}: {first['msg']})"
        raise UnsupportedModelError(found, "take the file from the publisher") from None


def _shape(config: Mapping[str, Any], architecture: Architecture, name: str) -> ModelShape:
    heads = config["num_attention_heads"]
    rope = _rope_settings(config)
    is_qwen3, has_experts = architecture in ("qwen3", "qwen3_moe"), architecture == "qwen3_moe"
    return ModelShape(
        name=name,
        architecture=architecture,
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        ffn_hidden_size=config["moe_intermediate_size" if has_experts else "intermediate_size"],
        num_attention_heads=heads,
        num_query_groups=_or_default(config, "num_key_value_heads", heads),
        head_dim=_or_default(config, "head_dim", 128 if is_qwen3 else config["hidden_size"] // heads),
        vocab_size=config["vocab_size"],
        norm_eps=config["rms_norm_eps"],
        rope_theta=_or_default(rope, "rope_theta", 10000.0),
        rope_scaling=_rope_scaling(rope),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=architecture == "qwen2",
        qk_norm=is_qwen3,
        max_position_embeddings=config["max_position_embeddings"],
        num_experts=config["num_experts"] if has_experts else 0,
        experts_per_token=config["num_experts_per_tok"] if has_experts else 0,
    )


def compare(shape: ModelShape, hf_config: Mapping[str, Any]) -> list[Mismatch]:
    """Every field in which a checkpoint's `config.json` differs from `shape`, in the order of the shape's fields.

    Raises:
        UnsupportedModelError: as `from_hf`.
    """
    found, wanted = from_hf(hf_config).model_dump(), shape.model_dump()
    compared = [key for key in wanted if key not in NOT_COMPARED]
    return [Mismatch(key, found[key], wanted[key]) for key in compared if found[key] != wanted[key]]


def _architecture(config: Mapping[str, Any]) -> Architecture:
    declared = (config.get("architectures") or [None])[0]
    for model_type, class_name in ARCHITECTURES.items():
        if class_name == declared or (declared is None and config.get("model_type") == model_type):
            return model_type
    found = declared or config.get("model_type") or "none"
    known = ", ".join(ARCHITECTURES.values())
    raise UnsupportedModelError(f"the architecture {found}", f"use one of {known}")


def _refuse_unsupported(config: Mapping[str, Any], architecture: str) -> None:
    """A bias that HuggingFace also puts on the output projection, biased feed-forwards, windows, other activations."""
    refused = {
        "attention_bias": architecture != "qwen2" and bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    if architecture == "qwen3_moe":
        # probabilities that do not sum to 1, layers without experts, experts that every token passes; SGLang never ties
        refused |= {
            "num_experts": config["num_experts"] == 0,
            "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
            "norm_topk_prob": not config.get("norm_topk_prob"),
            "decoder_sparse_step": _or_default(config, "decoder_sparse_step", 1) != 1,
            "mlp_only_layers": bool(config.get("mlp_only_layers")),
            **{key: bool(value) for key, value in config.items() if "shared_expert" in key},
        }
    for key, is_refused in refused.items():
        if is_refused:
            found = config.get(key, "left out")
            raise UnsupportedModelError(f"{key}: {found} in config.json", "use another model")


def _rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta` and the scaling in one mapping, from either spelling."""
    old = {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}
    return {**old, **(config.get("rope_parameters") or {})}


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if _or_default(rope, "partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError("a partial_rotary_factor other than 1", "use another model")
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnsupportedModelError(f"rope scaling of type {kind}", "use a model with default or llama3")
    missing = [key for key in RopeScaling.model_fields if rope.get(key) is None]
    if missing:
        found = f"rope scaling llama3 without {', '.join(missing)} in config.json"
        raise UnsupportedModelError(found, "take the file from the publisher")
    return RopeScaling(**{key: rope[key] for key in RopeScaling.model_fields})


def _or_default(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    return default if value is None else value
