"""Tensors moved into a few flat buffers, so that all of them leave and enter a device in a few large copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.megatron.sizes.buffers import room

BUFFER_BYTES = 2 * 2**30  # while one buffer is on its way, the device finds room for the next


def flat_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Zeros shaped as the tensors, views of few buffers of at most 2 GiB (or one tensor). One dtype and device."""
    views: list[Tensor] = []
    for part in flat_parts(tensors):
        buffer = torch.zeros(sum(room(tensor.numel()) for tensor in part), dtype=part[0].dtype, device=part[0].device)
        spaces = torch.split(buffer, [room(tensor.numel()) for tensor in part])
        views += [space[: t.numel()].view(t.shape) for space, t in zip(spaces, part, strict=True)]
    return views


def flat_parts(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Consecutive tensors that share a buffer."""
    parts: list[list[Tensor]] = []
    used = BUFFER_BYTES
    for tensor in tensors:
        size = room(tensor.numel()) * tensor.element_size()
        if used + size > BUFFER_BYTES:
            parts.append([])
            used = 0
        parts[-1].append(tensor)
        used += size
    return parts


@torch.no_grad()
def move_into_flat(tensors: Sequence[Tensor]) -> None:
    """Give the tensors storage in flat buffers; they stay the same objects with the same values.

    Each one's old memory is free as soon as it has been copied.
    """
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
        for tensor, view in zip(chosen, flat_like(chosen), strict=True):
            view.copy_(tensor)
            tensor.data = view
