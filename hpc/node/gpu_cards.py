"""What a GPU has, memory and compute capability, by the names under which clusters and people know it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.units import GIB

DRIVER_BYTES = GIB // 2  # of what nvidia-smi calls the total and a program does not get
MIN_CAPABILITY = 8.0  # bfloat16 and FlashAttention; CUDA 13 has no code for less than 7.5


@dataclass(frozen=True)
class Card:
    """A kind of GPU: `sold_gb` is what it is sold as, `total_gib` what a program finds, rounded down.

    `capability` is NVIDIA's compute capability, major.minor.
    """

    name: str
    sold_gb: int
    total_gib: float
    capability: float

    @property
    def total_bytes(self) -> int:
        """Memory that a program finds."""
        return int(self.total_gib * GIB)

    def __str__(self) -> str:
        return f"{self.name} {self.sold_gb} GB"


CARDS = (
    Card("B200", 180, 178.0, 10.0),
    Card("H200", 141, 139.7, 9.0),
    Card("H100", 80, 79.1, 9.0),
    Card("A100", 80, 79.1, 8.0),
    Card("A100", 40, 39.3, 8.0),
    Card("L40S", 48, 44.3, 8.9),
    Card("A40", 48, 44.3, 8.6),
    Card("A6000", 48, 47.4, 8.6),
    Card("V100", 32, 31.7, 7.0),
    Card("V100", 16, 15.7, 7.0),
    Card("A10", 24, 22.0, 8.6),
    Card("L4", 24, 22.0, 8.9),
    Card("T4", 16, 14.5, 7.5),
)
SHOWN = tuple(card for card in CARDS if card.name in ("H200", "H100", "A100", "L40S", "L4"))


def card_of(gpu_type: str) -> Card | None:
    """The card that a cluster calls `h100`, `nvidia_a100-sxm4-80gb` or `tesla_v100-sxm2-32gb`.

    None: an unknown name, a part of a GPU (MIG), or a card that is sold in two sizes where the name tells no size.
    """
    words = _words(gpu_type)
    if any(re.fullmatch(r"\d+g\.\d+gb|mig", word) for word in words):
        return None
    named = _named(gpu_type)
    sizes = {int(match[1]) for word in words if (match := re.fullmatch(r"(\d+)gb?", word))}
    fitting = [card for card in named if not sizes or card.sold_gb in sizes]
    return fitting[0] if len(fitting) == 1 else None


def sizes_of(gpu_type: str) -> list[str]:
    """How to name a card that is sold in several sizes, such as `a100-40gb`; empty where one name suffices."""
    found = [f"{card.name.lower()}-{card.sold_gb}gb" for card in _named(gpu_type)]
    return sorted(found) if len(found) > 1 else []


def capability_of(gpu_type: str) -> float | None:
    """Compute capability of what a cluster calls so, also where the name tells no size; None: an unknown name."""
    return next((card.capability for card in _named(gpu_type)), None)


def _named(gpu_type: str) -> list[Card]:
    """The cards of this name, in every size."""
    words = _words(gpu_type)
    return [card for card in CARDS if card.name.lower() in words]


def _words(gpu_type: str) -> list[str]:
    return re.split(r"[^a-z0-9.]+", gpu_type.lower())
