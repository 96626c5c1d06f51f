"""A weight that several tensors of a file make together, and what a scheme has to say of it.

Legend: R rows and C columns of a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from common.mistake import Wrong
from core.pretrained.header import BITS, StoredTensor
from modelcfg import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

Parts = Mapping[str, StoredTensor]  # by what their names have behind the weight's; the numbers themselves by `numbers`


class Scheme(Protocol):
    """A way in which a weight is kept in few bits."""

    numbers: str
    """What the name of the tensor with the numbers has behind the weight's."""

    def holds_numbers(self, stored: StoredTensor) -> bool:
        """Whether a tensor of such a name has a quantised weight's numbers."""
        ...

    def beside(self, numbers: StoredTensor) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the tensors that belong to the numbers, by what their names have behind the weight's."""
        ...

    def shape(self, numbers: StoredTensor) -> tuple[int, ...]:
        """[R, C] of the weight."""
        ...

    def values(self, parts: Parts, rows: range) -> Tensor:
        """Compute rows of the weight: [len(rows), C] float32."""
        ...


class Making(Scheme, Protocol):
    """A way in which weights are put in few bits here: in files that are written so, and for engines that compute so.

    Attributes:
        rows: of a weight that share factors.
        stored, dtype: of the numbers, as safetensors and torch call it.
    """

    @property
    def rows(self) -> int: ...

    stored: str
    dtype: str

    def settings(self, not_so: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of files of such a model, with the names of modules that are not in few bits."""
        ...

    def engine_settings(self, not_so: Sequence[str]) -> dict[str, Any]:
        """The one that an engine is told."""
        ...

    def make(self, weight: Tensor) -> dict[str, Tensor]:
        """Tensors that stand for [R, C] float32, by what their names have behind the weight's."""
        ...

    def num_factors(self, shape: ModelShape, numbers: int, ranks: int) -> int:
        """Factors in float32 that one of an engine's ranks has beside this many numbers of a model."""
        ...


@dataclass(frozen=True)
class QuantisedWeight:
    """A weight in few bits, which to all others is one in bfloat16: see `StoredTensor`."""

    scheme: Scheme
    parts: Parts

    dtype = "BF16"

    @property
    def file(self) -> Path:
        """The file with its numbers."""
        return self._numbers.file

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return self.scheme.shape(self._numbers)

    @property
    def num_bytes(self) -> int:
        """Size of the weight in bfloat16."""
        return prod(self.shape) * BITS[self.dtype] // 8

    def values(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """The weight, or a part of it, in float32."""
        return self.scheme.values(self.parts, range(self.shape[0])[rows])[:, columns]

    def read(self) -> bytearray:
        """The weight's bytes in bfloat16."""
        import torch

        rounded = self.values().to(torch.bfloat16)
        return bytearray(rounded.flatten().view(torch.uint8).numpy().data)

    @property
    def _numbers(self) -> StoredTensor:
        return self.parts[self.scheme.numbers]


def put_together(tensors: Mapping[str, StoredTensor], scheme: Scheme) -> dict[str, StoredTensor | QuantisedWeight]:
    """The weights of a model by name: the quantised ones, and the others as they are.

    Raises:
        Wrong: what belongs to a quantised weight is not there, or is of another shape.
    """
    found: dict[str, StoredTensor | QuantisedWeight] = {}
    taken: set[str] = set()
    for name, stored in tensors.items():
        if name.endswith(scheme.numbers) and scheme.holds_numbers(stored):
            weight = name.removesuffix(scheme.numbers)
            beside = {end: _fitting(tensors, weight + end, size) for end, size in scheme.beside(stored).items()}
            found[weight] = QuantisedWeight(scheme, {scheme.numbers: stored, **beside})
            taken |= {name, *(weight + end for end in beside)}
    return found | {name: stored for name, stored in tensors.items() if name not in taken}


def _fitting(tensors: Mapping[str, StoredTensor], name: str, shape: tuple[int, ...]) -> StoredTensor:
    stored = tensors.get(name)
    if stored is None or stored.shape != shape:
        what = "no" if stored is None else f"shape {list(stored.shape)} of"
        wanted = f"{list(shape)}, as the quantised weight beside it has it"
        raise Wrong(f"{what} {name}", wanted, "download config.json and weights of one version")
    return stored
