"""What of a model is kept in fp8, and how: the same in files that are written so and for engines that compute so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.sections.placement import PlacementConfig
from core.pretrained.header import StoredTensor
from core.pretrained.quantised.fp8_blocks import NUMBERS, Fp8Blocks
from modelcfg import ModelShape, matrices, other_linears

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = Fp8Blocks(128, 128)  # the blocks that all publishers have, and engines have kernels for
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Packing:
    """What is in few bits: names of weights, and of modules whose weights are not."""

    names: Collection[str]
    not_so: Sequence[str]
    scheme: Fp8Blocks = PUBLISHED

    @classmethod
    def of(cls, shape: ModelShape) -> Packing:
        """The linear layers of a model, but for embedding, output and routers; no names for a family without a way."""
        return cls(matrices(shape), other_linears(shape))

    @classmethod
    def of_engines(cls, placement: PlacementConfig, shape: ModelShape) -> Packing | None:
        """What engines have so of a model, by `placement.engine_weights`; None: nothing."""
        return cls.of(shape) if placement.engine_weights == "fp8" else None

    def settings(self) -> dict[str, Any]:
        """The `quantization_config` of such a model."""
        return self.scheme.settings(self.not_so)

    def shapes(self, whole: Shapes) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that stand for these weights, by name."""
        return {part: size for name, shape in whole.items() for part, size in self._sizes(name, shape)}

    def is_numbers(self, name: str) -> bool:
        """Whether the tensor of this name is in fp8."""
        return name.removesuffix(self.scheme.numbers) in self.names

    def make(self, weight: Tensor) -> dict[str, Tensor]:
        """What stands for one of these weights, by what the names have behind its own."""
        return self.scheme.make(weight.detach().float())

    def _sizes(self, name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        if name not in self.names:
            return [(name, shape)]
        beside = self.scheme.beside(StoredTensor(Path(), NUMBERS, shape, 0, prod(shape)))
        return [(name + self.scheme.numbers, shape), *((name + end, size) for end, size in beside.items())]
