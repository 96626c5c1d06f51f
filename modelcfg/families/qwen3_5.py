"""Qwen3.5: the layers of Qwen3-Next, whose states have projections of their own, with one feed-forward in each.

The decoder of a model that takes images: names of its tensors begin with `model.language_model.`, its settings are the
`text_config`. Trained on text, where the three positions of a token (`mrope_section`) are one and the same, and the
rotary ones of all other models. What sees images (`model.visual.`) and the layer for predicting several tokens (`mtp.`)
are carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcfg.families import qwen3_next
from modelcfg.family import Config, Family, or_default
from modelcfg.weights import Weight, feed_forward

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape


def _layer(shape: ModelShape, layer: int) -> list[Weight]:
    return [*qwen3_next.mixing(shape, layer), *feed_forward(shape.hidden_size, shape.ffn_hidden_size)]


def layer_fields(config: Config) -> dict[str, Any]:
    """What sets these layers apart from Qwen3's, sizes of states among it."""
    found = qwen3_next.mixing_fields(config)
    return {**found, "delta": {**found["delta"], "by_head": False}}


def fields(config: Config) -> dict[str, Any]:
    """What the family has in common with and without experts."""
    return {**layer_fields(config), **qwen3_next.attention_fields(config)}


def refused(config: Config) -> dict[str, bool]:
    """Other orders of layers, and gates of another kind."""
    return {
        **qwen3_next.refused_orders(config),
        "attn_output_gate": not or_default(config, "attn_output_gate", True),
        "output_gate_type": or_default(config, "output_gate_type", "swish") not in ("swish", "silu"),
    }


def engine_config(shape: ModelShape) -> dict[str, Any]:
    """Only the decoder is served, whose order of layers transformers 5 leaves out of the files that it writes."""
    return {"language_model_only": True, "text_config": qwen3_next.engine_config(shape)}


def carried(_: ModelShape) -> tuple[str, ...]:
    """What lies beside the decoder."""
    return ("model.visual.", "mtp.")


FAMILY = Family(
    "qwen3_5",
    "Qwen3_5ForConditionalGeneration",
    layer=_layer,
    fields=fields,
    refused=refused,
    prefix="model.language_model.",
    carried=carried,
    engine_config=engine_config,
    not_on_cpus=qwen3_next.FAMILY.not_on_cpus,
)
