"""Weights in fp8 with a scale for each row, or one for all: GLM-4.5 to 4.7-FP8.

A weight's numbers are float8_e4m3fn under its own name; `weight_scale` has the factors. weight = number * factor.
Source: compressed-tensors' format "float-quantized".
Left out: scales of activations in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pretrained.header import StoredTensor
from core.pretrained.quantised.compressed import FACTOR, kind_of_weights
from core.pretrained.quantised.weight import Parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "float-quantized"
STRATEGIES = {"channel": True, "tensor": False}  # whether each row has a scale


@dataclass(frozen=True)
class Fp8Rows:
    """A scale for each row, or one for a whole weight."""

    each: bool

    numbers = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Fp8Rows | None:
        """The scheme that a config.json asks for; None: another one."""
        kind = kind_of_weights(settings, FORMAT) or {}
        is_known = kind.get("type") == "float" and kind.get("num_bits") == 8 and kind.get("strategy") in STRATEGIES
        return cls(STRATEGIES[kind["strategy"]]) if is_known else None

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether they are in fp8."""
        return stored.dtype == "F8_E4M3" and len(stored.shape) == 2

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """A factor for each row, or one."""
        return {FACTOR: (numbers.shape[0], 1) if self.each else (1,)}

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """That of the numbers."""
        return numbers.shape

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Each number times its factor, in float32."""
        from core.pretrained.stored_values import stored_values

        factors = stored_values(parts[FACTOR], rows if self.each else None).float()
        return stored_values(parts[self.numbers], rows).float().mul_(factors)
