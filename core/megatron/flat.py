"""Tensors moved into one flat buffer, so that all of them leave and enter a device in one copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64  # elements: 128 bytes or more, as vectorised kernels like it


def flat_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Zeros shaped as the tensors, all views of one buffer. They share one dtype and device."""
    if not tensors:
        return []
    starts, total = [], 0
    for tensor in tensors:
        starts.append(total)
        total += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    buffer = torch.zeros(total, dtype=tensors[0].dtype, device=tensors[0].device)
    return [buffer[s : s + t.numel()].view(t.shape) for s, t in zip(starts, tensors, strict=True)]


@torch.no_grad()
def move_into_flat(tensors: Sequence[Tensor]) -> None:
    """Give the tensors storage in one buffer per dtype; they stay the same objects with the same values.

    Each one's old memory is free as soon as it has been copied.
    """
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
        for tensor, view in zip(chosen, flat_like(chosen), strict=True):
            view.copy_(tensor)
            tensor.data = view
