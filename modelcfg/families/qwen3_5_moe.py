"""Qwen3.5 with experts in every layer, as in Qwen3-Next: a gated feed-forward of all tokens beside them.

The publisher's files hold the experts of a layer in one tensor for gate and up, and one for down; transformers and
SGLang read them expert by expert, too, and so they are written and sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.families import qwen3_5, qwen3_next
from modelcfg.family import Config, Family
from modelcfg.weights import Weight, experts

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape


def _layer(shape: ModelShape, layer: int) -> list[Weight]:
    return [*qwen3_next.mixing(shape, layer), *experts(shape, shared="mlp.shared_expert", stacked=True)]


def layer_fields(config: Config) -> dict[str, Any]:
    """What sets these layers apart from Qwen3's, sizes of states among it."""
    return {**qwen3_5.layer_fields(config), "shared_gate": True}


def _fields(config: Config) -> dict[str, Any]:
    return {**qwen3_5.fields(config), **layer_fields(config), **qwen3_next.expert_fields(config)}


def _refused(config: Config) -> dict[str, bool]:
    return {**qwen3_5.refused(config), **qwen3_next.refused_experts(config)}


FAMILY = Family(
    "qwen3_5_moe",
    "Qwen3_5MoeForConditionalGeneration",
    layer=_layer,
    fields=_fields,
    refused=_refused,
    required=qwen3_next.FAMILY.required,
    renamed=(*qwen3_next.FAMILY.renamed, ("intermediate_size", "moe_intermediate_size")),
    prefix=qwen3_5.FAMILY.prefix,
    carried=qwen3_5.carried,
    engine_config=qwen3_5.engine_config,
    not_on_cpus=qwen3_5.FAMILY.not_on_cpus,
)
