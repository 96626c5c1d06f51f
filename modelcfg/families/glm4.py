"""GLM-4 (0414): norms behind attention and feed-forward too, and half of each head turned, in neighbouring pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.family import HEAD_DIM, Config, Family, or_default
from modelcfg.weights import Weight, attention, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape

# where config.json does not say, as transformers has it
ROTARY_FRACTION = 0.5


def _layer(shape: ModelShape, _: int) -> list[Weight]:
    hidden, ffn = shape.hidden_size, shape.ffn_hidden_size
    gate_up = ("mlp.gate_up_proj.weight",)
    return [
        norm("input_layernorm", "input_layernorm", hidden),
        *attention(shape),
        norm("self_attention.post_layernorm", "post_self_attn_layernorm", hidden),
        norm("pre_mlp_layernorm", "post_attention_layernorm", hidden),
        Weight("mlp.linear_fc1.weight", gate_up, "gate_up", ((2 * ffn, hidden),), "feed-forward"),
        Weight("mlp.linear_fc2.weight", ("mlp.down_proj.weight",), "columns", ((hidden, ffn),), "feed-forward"),
        norm("mlp.post_layernorm", "post_mlp_layernorm", hidden),
    ]


def rotary_fraction(config: Config) -> float:
    """What of each head positions turn, from either spelling."""
    rope = {**config, **(config.get("rope_parameters") or {})}
    return float(or_default(rope, "partial_rotary_factor", ROTARY_FRACTION))


def _fields(config: Config) -> dict[str, Any]:
    return {
        "head_dim": or_default(config, "head_dim", HEAD_DIM),
        "qkv_bias": bool(or_default(config, "attention_bias", True)),
        "post_norms": True,
        "rotary_interleaved": True,
        "rotary_fraction": rotary_fraction(config),
    }


def _refused(_: Config) -> dict[str, bool]:
    return {"attention_bias": False, "partial_rotary_factor": False}


FAMILY = Family("glm4", "Glm4ForCausalLM", layer=_layer, fields=_fields, refused=_refused, no_attention_groups=True)
