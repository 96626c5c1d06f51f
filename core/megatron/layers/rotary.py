"""Rotary position embedding at the row's own positions, which restart with every packed sequence.

Source: RoPE, arXiv:2104.09864; YaRN, arXiv:2309.00071; the scalings as in transformers' modeling_rope_utils.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from core.megatron.layers.fused import load
from modelcfg import ModelShape, RopeScaling, YarnScaling

fused_rotary = load("rotary")
LEAST_RAMP = 0.001  # channels, where both borders are one


class RowRotary(torch.nn.Module):
    """Takes the place of Megatron's RotaryEmbedding.

    Megatron would turn the angles into cosines and sines in every layer; here the row carries them, made once per pass,
    and the attention applies them. So what this module hands to the layers is nothing.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.inverse_frequencies = inverse_frequencies(shape).to(torch.cuda.current_device())
        scaling = shape.rope_scaling
        self.factor = scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0

    def get_rotary_seq_len(self, *args: Any, **_: Any) -> Any:
        """The row's parameters, which Megatron hands to `forward`."""
        return args[-1]

    def forward(self, row: Any, **_: Any) -> None:
        """Put [T, turned channels / 2] float32 cosines and sines into the row's parameters."""
        angles = row.positions.float()[:, None] * self.inverse_frequencies
        row.rotation = (angles.cos(), angles.sin())
        if self.factor != 1:
            row.rotation = (row.rotation[0] * self.factor, row.rotation[1] * self.factor)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """[T, h, d] with pairs of channels turned by the angles of [T, w / 2] cosines and sines; those behind w are kept.

    Args:
        interleaved: pairs are neighbours; else the two halves of the first w channels are turned against each other.
    """
    width = 2 * cos.shape[-1]
    if width < heads.shape[-1]:
        turned_part = rotate(heads[..., :width].contiguous(), cos, sin, interleaved)
        return torch.cat((turned_part, heads[..., width:]), -1)
    if interleaved:
        return _rotate_neighbours(heads, cos[:, None], sin[:, None])
    if heads.is_cuda and fused_rotary is not None:
        turned: Tensor = fused_rotary.rotate(heads, cos, sin)
        return turned
    left, right = heads.float().chunk(2, -1)
    c, s = cos[:, None], sin[:, None]
    return torch.cat((left * c - right * s, right * c + left * s), -1).to(heads.dtype)


def _rotate_neighbours(heads: Tensor, c: Tensor, s: Tensor) -> Tensor:
    even, odd = heads.float().reshape(*heads.shape[:-1], -1, 2).unbind(-1)
    return torch.stack((even * c - odd * s, odd * c + even * s), -1).flatten(-2).to(heads.dtype)


def inverse_frequencies(shape: ModelShape) -> Tensor:
    """[turned channels / 2] float32 angle per position of each pair of channels."""
    width = int(shape.head_dim * shape.rotary_fraction) if shape.latent is None else shape.latent.rotary_dim
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    plain, scaling = 1.0 / (shape.rope_theta**exponents), shape.rope_scaling
    if isinstance(scaling, RopeScaling):
        return _llama3(plain, scaling)
    if isinstance(scaling, YarnScaling):
        return _yarn(plain, scaling, shape.rope_theta)
    return plain / scaling.factor if scaling is not None else plain


def _yarn(plain: Tensor, scaling: YarnScaling, theta: float) -> Tensor:
    """Slow waves are stretched by `factor`, fast ones kept, those of the channels between interpolated."""
    width, context = 2 * len(plain), scaling.original_max_position_embeddings
    borders = [
        width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    first, last = (math.floor(borders[0]), math.ceil(borders[1])) if scaling.truncate else borders
    first, last = max(first, 0), min(last, width - 1)
    channels = torch.arange(len(plain), dtype=torch.float32)
    stretched = ((channels - first) / (max(last - first, 0.0) or LEAST_RAMP)).clamp(0, 1)
    return plain / scaling.factor * stretched + plain * (1 - stretched)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow waves are stretched by `factor`, fast ones kept, those between interpolated."""
    context = scaling.original_max_position_embeddings
    turns = context * plain / (2 * math.pi)  # how often the wave turns within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain
