"""Experts in floats of 4 bits with a power of two for each 32: gpt-oss.

Of a tensor `NAME` of all experts, [E, I, O], `NAME_blocks` [E, O, I / 32, 16] has two floats in a byte, the first in
its lower half: a sign, two bits of exponent, one of fraction (e2m1). `NAME_scales` [E, O, I / 32] has the exponent of
the power of two for each 32 of them, 127 larger.
Source: OCP Microscaling Formats, version 1.0, sections 5.3.3 and 6.3, and transformers' integrations/mxfp4.py.
Legend: E experts, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pretrained.header import StoredTensor
from core.pretrained.quantised.weight import Parts

if TYPE_CHECKING:
    from torch import Tensor

BYTE = "U8"
GROUP_BYTES = 16  # of the floats that have a power of two in common
FLOATS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # without their sign, the highest bit
EXPONENT_OF_1 = 127
POWERS = "_scales"


@dataclass(frozen=True)
class Mxfp4:
    """Floats of 4 bits."""

    numbers = "_blocks"

    @classmethod
    def of(cls, _: Mapping[str, Any]) -> Mxfp4:
        """The scheme; config.json says no more of it than its name, and which modules are not so."""
        return cls()

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether they are bytes in groups, of all experts."""
        return stored.dtype == BYTE and len(stored.shape) == 4 and stored.shape[-1] == GROUP_BYTES

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """A power of two for each group."""
        return {POWERS: numbers.shape[:-1]}

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """[E, I, O]."""
        experts, outputs, groups, width = numbers.shape
        return experts, groups * width * 2, outputs

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Experts' weights: each float times the power of two of its group, in float32, which is exact."""
        import torch

        from core.pretrained.stored_values import stored_values

        pairs = stored_values(parts[self.numbers], rows)  # [e, O, I / 32, 16]
        table = torch.tensor([*FLOATS, *(-number for number in FLOATS)])
        floats = table[torch.stack((pairs & 0xF, pairs >> 4), -1).flatten(-2).int()]  # [e, O, I / 32, 32]
        powers = stored_values(parts[POWERS], rows).int() - EXPONENT_OF_1
        return torch.ldexp(floats, powers[..., None]).flatten(-2).mT
