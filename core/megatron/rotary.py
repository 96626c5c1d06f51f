"""Rotary position embedding at the row's own positions, which restart with every packed sequence.

Source: RoPE, arXiv:2104.09864; the llama3 frequency scaling as in transformers' modeling_rope_utils.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modelcfg import ModelShape, RopeScaling


class RowRotary(torch.nn.Module):
    """Takes the place of Megatron's RotaryEmbedding: the "sequence length" it hands around is the positions tensor."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.inverse_frequencies = inverse_frequencies(shape).to(torch.cuda.current_device())

    def get_rotary_seq_len(self, *args: Any, **_: Any) -> Tensor:
        positions: Tensor = args[-1].positions
        return positions

    def forward(self, positions: Tensor, **_: Any) -> Tensor:
        """[T] int64 positions to [T, 1, 1, head_dim] float32 angles."""
        angles = positions.float()[:, None] * self.inverse_frequencies
        return torch.cat((angles, angles), dim=-1)[:, None, None, :]


def inverse_frequencies(shape: ModelShape) -> Tensor:
    """[head_dim / 2] float32 angle per position of each pair of channels."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    plain = 1.0 / (shape.rope_theta**exponents)
    return plain if shape.rope_scaling is None else _llama3(plain, shape.rope_scaling)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow waves are stretched by `factor`, fast ones kept, those between interpolated."""
    context = scaling.original_max_position_embeddings
    turns = context * plain / (2 * math.pi)  # how often the wave turns within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain
