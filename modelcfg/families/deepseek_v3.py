"""DeepSeek-V3 and R1, Moonlight, Kimi-K2: latent attention, experts behind a sigmoid router, dense layers at first."""

from __future__ import annotations

from typing import Any

from modelcfg.family import Config, Family, or_default
from modelcfg.sigmoid_experts import RENAMED_EXPERTS, REQUIRED_EXPERTS, expert_fields, refused_experts

REQUIRED = (*REQUIRED_EXPERTS, "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
# where config.json does not say, as transformers has it
DEFAULTS = {"first_k_dense_replace": 3, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5}


def fields(config: Config) -> dict[str, Any]:
    """Fields of all models with these layers."""
    return {
        **expert_fields(config),
        "num_query_groups": config["num_attention_heads"],
        "head_dim": config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        "rotary_interleaved": True,
        "latent": {
            "rank": config["kv_lora_rank"],
            "rotary_dim": config["qk_rope_head_dim"],
            "value_dim": config["v_head_dim"],
            "query_rank": config.get("q_lora_rank") or 0,
        },
    }


def refused(config: Config) -> dict[str, bool]:
    """What none of them has."""
    heads = config["num_attention_heads"]
    return {
        **refused_experts(config),
        "num_key_value_heads": or_default(config, "num_key_value_heads", heads) != heads,
        "rope_interleave": not or_default(config, "rope_interleave", True),
    }


def _fields(config: Config) -> dict[str, Any]:
    return fields({**config, **{key: or_default(config, key, value) for key, value in DEFAULTS.items()}})


FAMILY = Family(
    "deepseek_v3", "DeepseekV3ForCausalLM", fields=_fields, refused=refused, required=REQUIRED, renamed=RENAMED_EXPERTS
)
