"""Small updates of bf16 weights that show at once.

A bf16 weight says only which interval the weight lies in: near 0.1 an interval is 0.0005 wide. Its fp32 master, made
from it, lies in the middle. So a learning rate of 1e-5 must push 25 times in one direction until the weight that
computes changes at all, and then it jumps: the first steps of a run teach nothing (measured: docs/learning.md). Masters
that start anywhere in their intervals round to the same weights, but at every step some weights cross into the next
interval, in proportion to the update: on average the rounded weights follow the masters from the first step on. That
is dither, as quantisers know it (Schuchman 1964).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

HALF = 2**15  # of the interval, in steps of fp32: bf16 has the upper 16 of its bits
MAGNITUDE = 2**31 - 1
CHUNK = 2**24  # elements at a time: the noise takes memory


@torch.no_grad()
def dither(masters: Iterable[Tensor], seed: int) -> None:
    """Move each element, evenly distributed, within the interval that rounds to the bf16 number it has now.

    Args:
        masters: float32, contiguous, each element a bf16 number; zeros and the smallest numbers stay.
        seed: tensors of one size get noise by their order, so ranks that hold copies of a parameter agree.
    Collective: none.
    """
    seen: Counter[int] = Counter()
    for master in masters:
        own_seed = hash((seed, master.numel(), seen[master.numel()]))  # of numbers: the same in every process
        generator = torch.Generator(master.device).manual_seed(own_seed)
        seen[master.numel()] += 1
        for bits in torch.split(master.view(-1).view(torch.int32), CHUNK):
            noise = torch.randint(
                1 - HALF, HALF, bits.shape, generator=generator, device=bits.device, dtype=torch.int32
            )
            bits += noise * ((bits & MAGNITUDE) > 2 * HALF)
