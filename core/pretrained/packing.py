"""What of a model is in few bits, and how: the same in files that are written so and for engines that compute so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.sections.placement import PlacementConfig
from core.pretrained.few_bits import FEW_BITS, FewBits
from core.pretrained.header import StoredTensor
from core.pretrained.quantised.weight import Making
from modelcfg import ModelShape, matrices, other_linears

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Packing:
    """What is in few bits: names of weights, and of modules whose weights are not."""

    names: Collection[str]
    not_so: Sequence[str]
    way: FewBits = FEW_BITS["fp8"]

    @classmethod
    def of(cls, shape: ModelShape, way: FewBits = FEW_BITS["fp8"]) -> Packing:
        """The linear layers of a model, but for embedding, output and routers; no names for a family without a way."""
        return cls(matrices(shape), other_linears(shape), way)

    @classmethod
    def of_engines(cls, placement: PlacementConfig, shape: ModelShape) -> Packing | None:
        """What engines have so of a model, by `placement.engine_weights`; None: nothing."""
        way = FEW_BITS.get(placement.engine_weights)
        return cls.of(shape, way) if way is not None else None

    @property
    def scheme(self) -> Making:
        """What stands for a weight."""
        return self.way.scheme

    def settings(self) -> dict[str, Any]:
        """The `quantization_config` of files of such a model."""
        return self.scheme.settings(self.not_so)

    def engine_settings(self) -> dict[str, Any]:
        """The `quantization_config` that an engine is told."""
        return self.scheme.engine_settings(self.not_so)

    def shapes(self, whole: Shapes) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that stand for these weights, by name."""
        return {part: size for name, shape in whole.items() for part, size in self._sizes(name, shape)}

    def is_numbers(self, name: str) -> bool:
        """Whether the tensor of this name has the numbers of a weight in few bits."""
        return name.removesuffix(self.scheme.numbers) in self.names

    def make(self, weight: Tensor) -> dict[str, Tensor]:
        """What stands for one of these weights, by what the names have behind its own."""
        return self.scheme.make(weight.detach().float())

    def _sizes(self, name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        if name not in self.names:
            return [(name, shape)]
        beside = self.scheme.beside(StoredTensor(Path(), self.scheme.stored, shape, 0, prod(shape)))
        return [(name + self.scheme.numbers, shape), *((name + end, size) for end, size in beside.items())]
