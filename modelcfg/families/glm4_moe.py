"""GLM-4.5, 4.6 and 4.7: experts chosen by a sigmoid router, one feed-forward of all tokens, dense layers at first.

Half of each head is turned by positions, its two halves against each other. A layer for predicting several tokens lies
behind the last, and is carried.
"""

from __future__ import annotations

from typing import Any

from modelcfg.families.glm4 import rotary_fraction
from modelcfg.family import HEAD_DIM, Config, Family, or_default
from modelcfg.sigmoid_experts import RENAMED_EXPERTS, REQUIRED_EXPERTS, expert_fields, refused_experts


def _fields(config: Config) -> dict[str, Any]:
    return {
        **expert_fields(config),
        "head_dim": or_default(config, "head_dim", HEAD_DIM),
        "qkv_bias": bool(config.get("attention_bias")),
        "qk_norm": bool(config.get("use_qk_norm")),
        "rotary_fraction": rotary_fraction(config),
    }


def _refused(config: Config) -> dict[str, bool]:
    return {"attention_bias": False, "partial_rotary_factor": False, **refused_experts(config)}


FAMILY = Family(
    "glm4_moe",
    "Glm4MoeForCausalLM",
    fields=_fields,
    refused=_refused,
    required=REQUIRED_EXPERTS,
    renamed=RENAMED_EXPERTS,
)
