"""Weights as integers of 4 or 8 bits, several in one of 32, with a scale for each group: Kimi-K2-Thinking.

Of a weight `NAME`, `NAME_packed` has the integers, the first of each 32 bits in its lowest ones, each larger by half
the range than what it stands for; `NAME_scale` a factor for each `group_size` of them in a row; `NAME_shape` the size.
Source: compressed-tensors' format "pack-quantized".
Left out: zero points, integers in another order (`actorder`), one scale for a whole row, several kinds of groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pretrained.header import BITS, StoredTensor
from core.pretrained.quantised.compressed import kind_of_weights
from core.pretrained.quantised.weight import Parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "pack-quantized"
WORD = "I32"
SIZES = (4, 8)  # of an integer, in bits
SCALE, SIZE = "_scale", "_shape"


@dataclass(frozen=True)
class PackedIntegers:
    """Integers of this number of bits, with a scale for each group of this size."""

    bits: int
    group: int

    numbers = "_packed"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> PackedIntegers | None:
        """The scheme that a config.json asks for; None: another one."""
        kind = kind_of_weights(settings, FORMAT) or {}
        is_known = kind.get("type") == "int" and kind.get("strategy") == "group"
        bits, group = kind.get("num_bits"), kind.get("group_size")
        if not is_known or kind.get("actorder") or bits not in SIZES or not isinstance(group, int) or group < 1:
            return None
        return cls(bits, group)

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether they are in words of 32 bits, and fill groups."""
        return stored.dtype == WORD and len(stored.shape) == 2 and self.shape(stored)[1] % self.group == 0

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """A factor for each group, and the two sizes."""
        rows, columns = self.shape(numbers)
        return {SCALE: (rows, columns // self.group), SIZE: (2,)}

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """Rows, and the integers in a row."""
        rows, words = numbers.shape
        return rows, words * (BITS[WORD] // self.bits)

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Each integer times the factor of its group, in float32."""
        import torch

        from core.pretrained.stored_values import stored_values

        words = stored_values(parts[self.numbers], rows)
        places = torch.arange(0, BITS[WORD], self.bits, dtype=torch.int32)
        integers = (words[:, :, None] >> places & (1 << self.bits) - 1).flatten(1) - (1 << self.bits - 1)
        scale = stored_values(parts[SCALE], rows).float().repeat_interleave(self.group, 1)
        return scale.mul_(integers)
