"""Weights in fp8 with a scale for each block: DeepSeek-V3 and R1, Kimi-K2, MiniMax-M2, Qwen3-*-FP8.

A weight's numbers are float8_e4m3fn under its own name; `weight_scale_inv` has a factor for each block of
`weight_block_size`, blocks at the lower and the right edge being cut. weight = number * factor.
Source: DeepSeek-V3, arXiv:2412.19437, section 3.3.2, and the published inference/kernel.py, `weight_dequant`.
Left out: one scale for a whole weight, and scales of activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pretrained.header import StoredTensor
from core.pretrained.quantised.weight import Parts
from modelcfg import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("e4m3", "float8_e4m3fn")
NUMBERS = "F8_E4M3"  # as safetensors calls them
FACTORS = "_scale_inv"
LARGEST = 448.0  # of the numbers


@dataclass(frozen=True)
class Fp8Blocks:
    """Blocks of this size."""

    rows: int
    columns: int

    numbers = ""
    stored = NUMBERS
    dtype = "float8_e4m3fn"

    def settings(self, not_so: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of a model in these blocks, with the names of modules that are not."""
        said = {"quant_method": "fp8", "fmt": FORMATS[0], "activation_scheme": "dynamic"}
        return {**said, "weight_block_size": [self.rows, self.columns], "modules_to_not_convert": list(not_so)}

    engine_settings = settings

    def make(self, weight: Tensor) -> dict[str, Tensor]:
        """Tensors that a file holds of [R, C] float32, by what their names have behind the weight's.

        The largest number of each block becomes the largest that there is.
        """
        import torch
        from torch.nn import functional

        rows, columns = weight.shape
        high, wide = -(-rows // self.rows), -(-columns // self.columns)
        whole = functional.pad(weight, (0, wide * self.columns - columns, 0, high * self.rows - rows))
        blocks = whole.view(high, self.rows, wide, self.columns)
        most = blocks.abs().amax((1, 3))
        factors = most / torch.full_like(most, LARGEST)  # by a mere number a GPU multiplies: that rounds otherwise
        factors = torch.where(factors > 0, factors, 1.0)  # of a block of zeros
        numbers = (blocks / factors[:, None, :, None]).to(torch.float8_e4m3fn).view(whole.shape)
        return {self.numbers: numbers[:rows, :columns].contiguous(), FACTORS: factors}

    def num_factors(self, shape: ModelShape, numbers: int, ranks: int) -> int:
        """Factors of this many numbers, in whole blocks."""
        del shape, ranks
        return numbers // (self.rows * self.columns)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Fp8Blocks | None:
        """The scheme that a config.json asks for; None: another one in fp8."""
        match settings.get("weight_block_size"):
            case [int(rows), int(columns)] if min(rows, columns) > 0 and settings.get("fmt", FORMATS[0]) in FORMATS:
                return cls(rows, columns)
        return None

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether they are in fp8."""
        return stored.dtype == NUMBERS and len(stored.shape) == 2

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """A factor for each block."""
        rows, columns = numbers.shape
        return {FACTORS: (-(-rows // self.rows), -(-columns // self.columns))}

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """That of the numbers."""
        return numbers.shape

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Each number times the factor of its block, in float32."""
        from core.pretrained.stored_values import stored_values

        numbers = stored_values(parts[self.numbers], rows).float()
        blocks = range(rows.start // self.rows, -(-rows.stop // self.rows))
        factors = stored_values(parts[FACTORS], blocks).float()
        down = factors.repeat_interleave(self.rows, 0)[rows.start - blocks.start * self.rows :][: len(rows)]
        return numbers.mul_(down.repeat_interleave(self.columns, 1)[:, : numbers.shape[1]])
