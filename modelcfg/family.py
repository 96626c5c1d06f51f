"""A model family: what of a HuggingFace `config.json` it takes and refuses, and the weights of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelcfg.weights import Weight, attention, experts, feed_forward, latent_attention, norm

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape

Config = Mapping[str, Any]
PREFIX = "model."
HEAD_DIM = 128  # of the families that have one, where config.json does not say
REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)


def decoder_layer(shape: ModelShape, layer: int) -> list[Weight]:
    """A norm, the attention, a norm, the feed-forward or experts: the layer of Llama and of those that follow it."""
    width = shape.dense_ffn_hidden_size or shape.ffn_hidden_size
    return [
        norm("input_layernorm", "input_layernorm", shape.hidden_size),
        *(attention(shape) if shape.latent is None else latent_attention(shape, shape.latent)),
        norm("pre_mlp_layernorm", "post_attention_layernorm", shape.hidden_size),
        *(experts(shape) if shape.has_experts(layer) else feed_forward(shape.hidden_size, width)),
    ]


def layers_behind(shape: ModelShape) -> tuple[str, ...]:
    """Layers for predicting several tokens, numbered on behind the last."""
    first = shape.num_layers
    return tuple(f"{PREFIX}layers.{layer}." for layer in range(first, first + shape.carried_layers))


def nothing(_: Any) -> dict[str, Any]:
    """No fields, nothing refused, and nothing to tell engines, beyond what all families have in common."""
    return {}


@dataclass(frozen=True)
class Family:
    """All that is particular to a family. One module of `modelcfg/families` each, named after `model_type`.

    Attributes:
        model_type: HuggingFace's; `architecture` of a shape.
        hf_class: HuggingFace's class, as `architectures` of a config.json names it.
        layer: the weights of a layer, by its number, in HuggingFace's order.
        fields: those of `ModelShape` that the common reading does not have, or has otherwise.
        refused: key of config.json → whether its value makes a model that the shape cannot express. It takes the place
            of what is refused in all families where it has the same key.
        required: further keys that must be there.
        renamed: key → another name under which it may stand.
        prefix: what the names of all tensors of the model begin with, the output layer's aside.
        carried: beginnings of the names of tensors that a model directory may hold beside the model: heads for several
            tokens, what sees images. They are neither computed, trained nor synced, and written out with the model as
            they were.
        engine_config: keys of `config.json` that SGLang asks for, and that not everybody writes.
        not_on_cpus: why no engine on CPUs serves it; empty: one does.
        no_attention_groups: whether SGLang's class cuts attention over all ranks of an engine even where they are to
            compute it in groups (`enable_dp_attention`): they would add up numbers of different samples.
        tells_no_experts: why engines cannot say which experts they chose; empty: they can, where there are any.
    """

    model_type: str
    hf_class: str
    layer: Callable[[ModelShape, int], list[Weight]] = decoder_layer
    fields: Callable[[Config], dict[str, Any]] = nothing
    refused: Callable[[Config], dict[str, bool]] = nothing
    required: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    prefix: str = PREFIX
    carried: Callable[[ModelShape], tuple[str, ...]] = layers_behind
    engine_config: Callable[[ModelShape], dict[str, Any]] = nothing
    not_on_cpus: str = ""
    no_attention_groups: bool = False
    tells_no_experts: str = ""


def or_default(config: Config, key: str, default: Any) -> Any:
    """Value of a key; the default where it is left out or null."""
    value = config.get(key)
    return default if value is None else value
