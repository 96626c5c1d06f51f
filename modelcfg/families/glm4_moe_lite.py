"""GLM-4.7-Flash: the layers of DeepSeek-V3 with a list of which are dense."""

from __future__ import annotations

from typing import Any

from modelcfg.families import deepseek_v3
from modelcfg.family import Config, Family, or_default
from modelcfg.sigmoid_experts import RENAMED_EXPERTS

SCALE = 1.8  # where config.json does not say, as transformers has it


def _dense_layers(config: Config) -> int:
    kinds = config.get("mlp_layer_types")
    return kinds.count("dense") if kinds else int(or_default(config, "first_k_dense_replace", 1))


def _fields(config: Config) -> dict[str, Any]:
    said = {"routed_scaling_factor": or_default(config, "routed_scaling_factor", SCALE)}
    return deepseek_v3.fields({**config, **said, "first_k_dense_replace": _dense_layers(config)})


def _refused(config: Config) -> dict[str, bool]:
    dense, layers = _dense_layers(config), config["num_hidden_layers"]
    in_order = ["dense"] * dense + ["sparse"] * (layers - dense)
    return {**deepseek_v3.refused(config), "mlp_layer_types": (config.get("mlp_layer_types") or in_order) != in_order}


FAMILY = Family(
    "glm4_moe_lite",
    "Glm4MoeLiteForCausalLM",
    fields=_fields,
    refused=_refused,
    required=deepseek_v3.REQUIRED,
    renamed=RENAMED_EXPERTS,
)
