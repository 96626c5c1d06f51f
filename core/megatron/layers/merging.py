"""Adapters merged into the weights that they are beside. No Megatron.

Legend: I inputs and O outputs of a layer, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.megatron.sizes.buffers import MERGED_AT_ONCE
from modelcfg.adapters import Adapted


@torch.no_grad()
def merged(weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> Tensor:
    """[O, I] W + scale B A, summed in float32 and rounded once to the weight's precision. A new tensor.

    Args:
        weight: [O, I], lora_a: [r, I], lora_b: [O, r].
    """
    result, wide = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device), lora_a.float()
    step = max(1, MERGED_AT_ONCE // weight.shape[1])
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        result[rows] = weight[rows].float().addmm_(lora_b[rows].float(), wide, alpha=scale)
    return result


@torch.no_grad()
def merged_layer(weight: Tensor, adapted: Adapted, sides: Sequence[tuple[Tensor, Tensor]], scale: float) -> Tensor:
    """The weight of one of Megatron's layers with what its adapters add. A new tensor.

    Args:
        sides: (A, B) of each of `adapted.chosen`.
    """
    result = weight.clone()
    parts = torch.split(result.view(adapted.groups, -1, adapted.inputs), list(adapted.widths), 1)  # [groups, width, I]
    for place, (lora_a, lora_b) in zip(adapted.chosen, sides, strict=True):
        part = parts[place]
        part.copy_(merged(part.reshape(-1, adapted.inputs), lora_a, lora_b, scale).view_as(part))
    return result
