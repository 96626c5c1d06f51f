"""Weights in int8 with a scale for each row: models quantised for W8A8 by compressed-tensors, and SGLang's w8a8_int8.

A weight's numbers are int8 under its own name; `weight_scale` has the factors, [R, 1]. weight = number * factor.
Source: compressed-tensors' format "int-quantized", and W8A8Int8LinearMethod in SGLang 0.5.16.
Left out: one scale for a whole weight, zero points, scales of activations in the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pretrained.header import StoredTensor
from core.pretrained.quantised.compressed import FACTOR, kind_of_weights
from core.pretrained.quantised.weight import Parts
from modelcfg import ModelShape, matrix_rows

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "int-quantized"
NUMBERS = "I8"  # as safetensors calls them
LARGEST = 127.0  # of the numbers, and the least below zero
OUTPUT = "lm_head"  # no layer that SGLang asks its int8 about: named, it would have the method of another kind


@dataclass(frozen=True)
class Int8Rows:
    """A scale for each row."""

    rows = 1
    numbers = ""
    stored = NUMBERS
    dtype = "int8"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Int8Rows | None:
        """The scheme that a config.json asks for; None: another one."""
        kind = kind_of_weights(settings, FORMAT) or {}
        is_known = kind.get("type") == "int" and kind.get("num_bits") == 8 and kind.get("strategy") == "channel"
        return cls() if is_known else None

    def settings(self, not_so: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of files of such a model, with the names of modules that are not."""
        alike = {"num_bits": 8, "type": "int", "symmetric": True}
        weights = {**alike, "strategy": "channel", "dynamic": False}
        activations = {**alike, "strategy": "token", "dynamic": True}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
        said = {"quant_method": "compressed-tensors", "format": FORMAT, "quantization_status": "compressed"}
        return {**said, "config_groups": {"group_0": group}, "ignore": list(not_so)}

    def engine_settings(self, not_so: Sequence[str]) -> dict[str, Any]:
        """The one that an engine is told: SGLang takes a name for the beginning of others, a pattern as it is."""
        ignored = [f"re:{re.escape(name)}$" for name in not_so if name != OUTPUT]
        return {"quant_method": "w8a8_int8", "ignore": ignored}

    def make(self, weight: Tensor) -> dict[str, Tensor]:
        """Tensors that a file holds of [R, C] float32, by what their names have behind the weight's.

        The largest number of each row becomes the largest that there is.
        """
        import torch

        most = weight.abs().amax(1, keepdim=True)
        factors = most / torch.full_like(most, LARGEST)  # by a mere number a GPU multiplies: that rounds otherwise
        factors = torch.where(factors > 0, factors, 1.0)  # of a row of zeros
        numbers = (weight / factors).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        return {self.numbers: numbers, FACTOR: factors}

    def num_factors(self, shape: ModelShape, numbers: int, ranks: int) -> int:
        """Factors of a model's linear layers on one of an engine's ranks: of a matrix cut by columns all have all."""
        del numbers
        return matrix_rows(shape, ranks)

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether they are in int8."""
        return stored.dtype == NUMBERS and len(stored.shape) == 2

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """A factor for each row."""
        return {FACTOR: (numbers.shape[0], 1)}

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """That of the numbers."""
        return numbers.shape

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Each number times the factor of its row, in float32."""
        from core.pretrained.stored_values import stored_values

        return stored_values(parts[self.numbers], rows).float().mul_(stored_values(parts[FACTOR], rows).float())
