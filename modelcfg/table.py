"""The whole table of weights of a shape: what is ahead of the layers, each layer's lines, what is behind them."""

from __future__ import annotations

from modelcfg.families import families
from modelcfg.shape import ModelShape
from modelcfg.weights import EMBEDDING, OUTPUT, Weight, norm


def before_layers(shape: ModelShape) -> Weight:
    """The embedding."""
    name = f"{_prefix(shape)}embed_tokens.weight"
    return Weight(EMBEDDING, (name,), "vocab", ((shape.vocab_size, shape.hidden_size),), "embedding")


def layer_weights(shape: ModelShape, layer: int) -> list[Weight]:
    """The lines of a layer, by its number; their names begin behind `layer_prefix`."""
    return families()[shape.architecture].layer(shape, layer)


def layer_prefix(shape: ModelShape, layer: int) -> str:
    """What HuggingFace's names of a layer's tensors begin with."""
    return f"{_prefix(shape)}layers.{layer}."


def after_layers(shape: ModelShape) -> list[Weight]:
    """The final norm and, unless it is the embedding, the output layer."""
    final = norm("decoder.final_layernorm", f"{_prefix(shape)}norm", shape.hidden_size)
    whole = ((shape.vocab_size, shape.hidden_size),)
    output = Weight(OUTPUT, ("lm_head.weight",), "vocab", whole, "output")
    return [final] if shape.tied_embeddings else [final, output]


def _prefix(shape: ModelShape) -> str:
    return families()[shape.architecture].prefix
