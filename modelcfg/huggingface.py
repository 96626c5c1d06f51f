"""A shape from a HuggingFace `config.json`, and the comparison of the two.

Both spellings of the rotary settings are read: `rope_theta` with `rope_scaling` (transformers 4, and what is
published on the hub) and `rope_parameters` (transformers 5). A setting that the shape cannot express is refused, never
dropped. Of a model that takes images too, the settings of its decoder (`text_config`) are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelcfg.catalogue import load, names
from modelcfg.families import families
from modelcfg.family import REQUIRED, Family, or_default
from modelcfg.rope import rope_scaling
from modelcfg.shape import ModelShape
from modelcfg.unsupported import UnsupportedModelError

# Base and instruct checkpoints of one model are published with different limits (Qwen2.5-1.5B: 131072 and 32768), and
# no weight depends on the limit. Heads for several tokens are not trained.
NOT_COMPARED = ("name", "hub", "max_position_embeddings", "carried_layers")


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
    config = decoder_config(config)
    family = _family(config)
    config = {**config, **{key: or_default(config, key, config.get(other)) for key, other in family.renamed}}
    missing = [key for key in REQUIRED + family.required if config.get(key) is None]
    if missing:
        raise UnsupportedModelError(f"a config.json without {', '.join(missing)}", "take the file from the publisher")
    _refuse_unsupported(config, family)
    try:
        return _shape(config, family, name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"a config.json that contradicts itself ({where or 'shape'}: {first['msg']})"
        raise UnsupportedModelError(found, "take the file from the publisher") from None


def decoder_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A `config.json` with all that it says of the decoder at the top; what it says there itself, it says of the whole
    model.
    """
    return {**(config.get("text_config") or {}), **config}


def _shape(config: Mapping[str, Any], family: Family, name: str) -> ModelShape:
    heads = config["num_attention_heads"]
    rope = _rope_settings(config)
    common = {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": heads,
        "num_query_groups": or_default(config, "num_key_value_heads", heads),
        "head_dim": or_default(config, "head_dim", config["hidden_size"] // heads),
        "vocab_size": config["vocab_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": or_default(rope, "rope_theta", 10000.0),
        "rope_scaling": rope_scaling(rope, config),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "qkv_bias": False,
        "qk_norm": False,
        "max_position_embeddings": config["max_position_embeddings"],
        "carried_layers": or_default(config, "num_nextn_predict_layers", 0),
    }
    return ModelShape.model_validate(
        {"name": name, "architecture": family.model_type, **common, **family.fields(config)}
    )


def compare(shape: ModelShape, hf_config: Mapping[str, Any]) -> list[Mismatch]:
    """Every field in which a checkpoint's `config.json` differs from `shape`, in the order of the shape's fields.

    Raises:
        UnsupportedModelError: as `from_hf`.
    """
    found, wanted = from_hf(hf_config).model_dump(), shape.model_dump()
    compared = [key for key in wanted if key not in NOT_COMPARED]
    return [Mismatch(key, found[key], wanted[key]) for key in compared if found[key] != wanted[key]]


def nearest_entries(hf_config: Mapping[str, Any]) -> tuple[list[str], list[Mismatch]]:
    """Names of the catalogue whose shape a `config.json` describes, or of the one that it differs least from, and how.

    Raises:
        UnsupportedModelError: as `from_hf`.
    """
    differences = {name: compare(load(name), hf_config) for name in names()}
    least = min(map(len, differences.values()))
    nearest = [name for name, found in differences.items() if len(found) == least]
    return (nearest, []) if least == 0 else (nearest[:1], differences[nearest[0]])


def _family(config: Mapping[str, Any]) -> Family:
    declared = (config.get("architectures") or [None])[0]
    for model_type, family in families().items():
        if family.hf_class == declared or (declared is None and config.get("model_type") == model_type):
            return family
    found = declared or config.get("model_type") or "none"
    known = ", ".join(family.hf_class for family in families().values())
    raise UnsupportedModelError(f"the architecture {found}", f"use one of {known}")


def _refuse_unsupported(config: Mapping[str, Any], family: Family) -> None:
    """A bias that HuggingFace also puts on the output projection, biased feed-forwards, windows, other activations."""
    refused = {
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "partial_rotary_factor": or_default(_rope_settings(config), "partial_rotary_factor", 1.0) != 1.0,
        **family.refused(config),
    }
    for key, is_refused in refused.items():
        if is_refused:
            found = {**config, **_rope_settings(config)}.get(key, "left out")
            raise UnsupportedModelError(f"{key}: {found} in config.json", "use another model")


def _rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta` and the scaling in one mapping, from either spelling."""
    top = {key: config.get(key) for key in ("rope_theta", "partial_rotary_factor")}
    old = {**top, **(config.get("rope_scaling") or {})}
    return {**old, **(config.get("rope_parameters") or {})}
