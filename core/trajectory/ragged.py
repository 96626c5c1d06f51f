"""Sequences of different lengths, one behind the other: flat values and where each begins.

B sequences, N values in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, eq=False)
class Ragged:
    """`ragged[i]` is `values[offsets[i] : offsets[i + 1]]`.

    values: [N]; offsets: [B + 1] int64, rising from 0 to N.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        rising = self.offsets.ndim == 1 and len(self.offsets) > 0 and bool(np.all(np.diff(self.offsets) >= 0))
        if not rising or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(
                f"offsets {_ends(self.offsets)} for {len(self.values)} values; wanted offsets that rise from 0 to "
                f"{len(self.values)}"
            )

    @classmethod
    def pack(cls, sequences: Sequence[Sequence[Any]], dtype: DTypeLike) -> Ragged:
        """Put the sequences one behind the other."""
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
        values = np.empty(int(offsets[-1]), dtype=dtype)
        for start, sequence in zip(offsets, sequences, strict=False):
            values[start : start + len(sequence)] = sequence
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        if not 0 <= index < len(self):  # a negative index would read across the ends
            raise IndexError(f"sequence {index} of {len(self)}")
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[B] int64."""
        return np.diff(self.offsets)


def _ends(offsets: NDArray[np.int64]) -> str:
    return f"{offsets[0]} to {offsets[-1]}" if offsets.size else "(none)"
