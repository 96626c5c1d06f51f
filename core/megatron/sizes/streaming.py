"""Sizes of an optimizer state that streams: in which pieces it passes through the device. No torch.

host    ├ buffer ──────────────────────────┤├ buffer ───────┤   masters, and each moment alike
pieces  ├ piece ──┤├ piece ──┤├ piece ──┤├─┤├ piece ──┤├────┤
"""

from __future__ import annotations

from common.units import FP32_BYTES

PIECE = 2**25  # elements of a piece: 128 MiB of each array, long enough for a link to reach its speed
SLOTS = 3  # pieces on the device at a time: one comes in, one is computed, one goes out


def staging_bytes(elements: int, has_masters: bool) -> int:
    """Device memory of the pieces that are there at a time, for a state of this number of elements."""
    return min(SLOTS * PIECE, elements) * num_arrays(has_masters) * FP32_BYTES


def num_arrays(has_masters: bool) -> int:
    """Two moments, and the masters where parameters are not their own."""
    return 3 if has_masters else 2


def state_bytes(elements: int, has_masters: bool) -> int:
    """Host memory of the whole state."""
    return elements * num_arrays(has_masters) * FP32_BYTES
