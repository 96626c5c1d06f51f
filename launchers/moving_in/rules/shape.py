"""The model's shape as Megatron is told it: which known model it is, and what it takes where it is none."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import modelcfg
from launchers.moving_in.flags import Flags, number, whole
from modelcfg import LatentAttention, ModelShape, SigmoidRouter
from modelcfg.families import qwen3_5, qwen3_5_moe, qwen3_next

WHOLE_NORMS = "minimax_m2"
# flags do not say the sizes of their states, so models are one if all else is
STATEFUL = {
    "qwen3_next": qwen3_next.layer_fields,
    "qwen3_5_moe": qwen3_5_moe.layer_fields,
    "qwen3_5": qwen3_5.layer_fields,
}
OF_SPEC = ("glm4", WHOLE_NORMS, *STATEFUL)  # names in --spec of layers that the family of that name has here
MTP = "mtp_num_layers"  # carried along where the family is known
OF_NO_FAMILY = {
    "spec": "layers of its own (--spec)",
    "attention_output_gate": "gated attention",
    "softmax_type": "attention sinks",
    MTP: "heads for several tokens",
}
SIZES = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size")
LONGEST = 1 << 20  # positions: flags do not say them, and no weight depends on them
SAME = ("max_position_embeddings", "name", "hub", "norm_eps", "rope_scaling", "carried_layers", "delta")
LIST = re.compile(r"\[([01](?:,[01])*)\](?:\*(\d{1,3}))?")


def unknown_family(flags: Flags) -> str:
    """What the model has that no family here has; empty: nothing that flags show."""
    for name, what in OF_NO_FAMILY.items():
        carries = _has_sigmoid_router(flags) or _has_states(flags) or _architecture(flags) == "mimo"
        known = bool(_family_of_spec(flags)) if name == "spec" else name == MTP and carries
        known |= name == "attention_output_gate" and _has_states(flags)
        if flags.look(name) and not known:
            return what
    latent = flags.look("multi_latent_attention")
    if latent and not _has_sigmoid_router(flags):
        return "multi-latent attention without a sigmoid router"
    if flags.look("num_experts") and not _has_sigmoid_router(flags):
        if not flags.look("qk_layernorm"):
            return "experts without norms of query and key"
        if flags.look("moe_shared_expert_intermediate_size") and not _has_states(flags):
            return "a feed-forward of all tokens beside a softmax router"
    return ""


def shape_of(flags: Flags) -> ModelShape | None:
    """The shape that the flags describe; None: they describe none, or one of no family here."""
    layers, hidden, heads, vocabulary = (whole(flags.said(name), 0) for name in SIZES)
    if min(layers, hidden, heads, vocabulary) <= 0 or unknown_family(flags):
        return None
    try:
        return ModelShape(
            name="of-flags",
            architecture=_architecture(flags),
            num_layers=layers,
            hidden_size=hidden,
            ffn_hidden_size=whole(flags.said("moe_ffn_hidden_size") or flags.said("ffn_hidden_size"), 4 * hidden),
            num_attention_heads=heads,
            num_query_groups=whole(flags.said("num_query_groups"), heads),
            vocab_size=vocabulary,
            norm_eps=number(flags.said("norm_epsilon"), 1e-5),
            rope_theta=number(flags.said("rotary_base"), 10000.0),
            tied_embeddings=flags.look("untie_embeddings_and_output_weights") is None,
            post_norms=flags.look("post_self_attn_layernorm") is not None,
            rotary_fraction=number(flags.said("rotary_percent"), 1.0),
            max_position_embeddings=LONGEST,
            **_attention(flags, hidden // heads),
            **_experts(flags, layers),
            **(STATEFUL[_architecture(flags)]({}) if _has_states(flags) else {}),
        )
    except ValueError:  # sizes that no model has
        return None


def _attention(flags: Flags, default_dim: int) -> dict[str, Any]:
    """Fields of the shape that latent attention has otherwise. Megatron gives it no biases, whatever the flags."""
    if not flags.look("multi_latent_attention"):
        return {
            "head_dim": whole(flags.said("kv_channels"), default_dim),
            "qk_norm": flags.look("qk_layernorm") is not None,
            "qk_norm_whole": _family_of_spec(flags) == WHOLE_NORMS,
            "qkv_bias": flags.look("add_qkv_bias") is not None,
            "rotary_interleaved": flags.look("rotary_interleaved") is not None,
        }
    turned = whole(flags.said("qk_pos_emb_head_dim"), 64)
    latent = LatentAttention(
        rank=whole(flags.said("kv_lora_rank"), 512),
        rotary_dim=turned,
        value_dim=whole(flags.said("v_head_dim"), 128),
        query_rank=whole(flags.said("q_lora_rank"), 0),
    )
    head_dim = whole(flags.said("qk_head_dim"), 128) + turned
    return {"head_dim": head_dim, "qk_norm": False, "qkv_bias": False, "rotary_interleaved": True, "latent": latent}


def _experts(flags: Flags, layers: int) -> dict[str, Any]:
    """Fields of the shape that only models with experts have."""
    experts = whole(flags.said("num_experts"), 0)
    found: dict[str, Any] = {"num_experts": experts}
    if experts:
        found["experts_per_token"] = whole(flags.said("moe_router_topk"), 2)
        found["shared_ffn_hidden_size"] = whole(flags.said("moe_shared_expert_intermediate_size"), 0)
    if not experts or not _has_sigmoid_router(flags):
        return found
    router = {
        "groups": whole(flags.said("moe_router_num_groups"), 1),
        "groups_per_token": whole(flags.said("moe_router_group_topk"), 1),
        "scale": number(flags.said("moe_router_topk_scaling_factor"), 1.0),
    }
    dense = _dense_layers(flags.said("moe_layer_freq"), layers)
    return found | {
        "router": SigmoidRouter(**router),
        "dense_layers": dense,
        "dense_ffn_hidden_size": whole(flags.said("ffn_hidden_size"), 0) if dense else 0,
    }


def _dense_layers(frequency: str, layers: int) -> int:
    """Dense layers at first, of `[0]*1+[1]*45` or `[0,1,1]`.

    Raises:
        ValueError: no such list, or another order.
    """
    pattern = ""
    for term in frequency.replace(" ", "").split("+") if frequency else []:
        match = LIST.fullmatch(term)
        if match is None:
            raise ValueError(f"found {frequency}; wanted a list of 0 and 1: give it as --moe-layer-freq '[0]*1+[1]*45'")
        pattern += match[1].replace(",", "") * int(match[2] or 1)
    dense = len(pattern) - len(pattern.lstrip("0"))
    if pattern and pattern != "0" * dense + "1" * (layers - dense):
        raise ValueError(f"found {frequency} for {layers} layers; wanted dense layers first, then layers with experts")
    return dense


def _has_states(flags: Flags) -> bool:
    return _family_of_spec(flags) in STATEFUL


def _has_sigmoid_router(flags: Flags) -> bool:
    return flags.said("moe_router_score_function") == "sigmoid"


def known_name(flags: Flags, path: str) -> str | None:
    """The name of `ebbtide models` with this shape, that of the model's directory first; None: there is none."""
    shape = shape_of(flags)
    if shape is None:
        return None
    fits = [name for name in modelcfg.names() if _same(modelcfg.load(name), shape)]
    folder = posixpath.basename(path).casefold().replace("-", "")
    series = sorted(fits, key=lambda name: -len(_series(name)))
    named = [name for name in fits if name.replace("-", "") in folder]
    return next(iter([*named, *(name for name in series if _series(name) in folder), *fits]), None)


def _series(name: str) -> str:
    """The name without its sizes, as a folder may have it."""
    return re.sub(r"-[\d.]+[mb](-a[\d.]+b)?$", "", name).replace("-", "")


def _architecture(flags: Flags) -> str:
    if flags.look("spec"):
        return _family_of_spec(flags)
    if flags.look("num_experts") and _has_sigmoid_router(flags):
        latent = "glm4_moe_lite" if flags.look("add_qkv_bias") else "deepseek_v3"
        return latent if flags.look("multi_latent_attention") else "glm4_moe"
    if flags.look("qk_layernorm"):
        return "qwen3_moe" if flags.look("num_experts") else "qwen3"
    if flags.look("add_qkv_bias"):
        return "mimo" if whole(flags.said(MTP), 0) > 0 else "qwen2"
    return "llama"


def _family_of_spec(flags: Flags) -> str:
    """The family whose layers --spec names; empty: none here."""
    found = next((family for family in OF_SPEC if family in flags.said("spec")), "")
    return "qwen3_5_moe" if found == "qwen3_5" and flags.look("num_experts") else found


def _same(one: ModelShape, other: ModelShape) -> bool:
    """Whether two shapes are one, but for what flags do not say or spell in another way."""
    return one.model_dump(exclude=set(SAME)) == other.model_dump(exclude=set(SAME))
