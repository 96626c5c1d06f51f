"""Per-token values of a list of samples, laid end to end, and the micro-batches that index into them.

Legend: N response tokens of all samples, R targets of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.algorithm.loss import TokenInputs
from core.megatron.model import RowParams, row_params
from core.packing import Row, TrainSample


class TokenTable:
    """Where each sample's response tokens lie among all N."""

    def __init__(self, samples: Sequence[TrainSample]) -> None:
        self.lengths = [len(sample.response_tokens) for sample in samples]
        self.offsets = torch.tensor([0, *self.lengths]).cumsum(0)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    def index(self, row: Row) -> Tensor:
        """[R] positions among the N of the row's targets."""
        return self.offsets[row.sample_index] + row.token_index

    def of(self, places: Sequence[int]) -> Tensor:
        """[N] bool: the tokens of the samples at these places."""
        chosen = np.zeros(len(self.lengths), dtype=bool)
        chosen[list(places)] = True
        return torch.from_numpy(np.repeat(chosen, self.lengths))

    def spread(self, values: Sequence[float]) -> Tensor:
        """[N] float32 of one value per sample. (torch's repeat_interleave wakes all threads for it: 10 ms.)"""
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float32), self.lengths))

    def flat(self, values: Sequence[Sequence[float]]) -> Tensor:
        """[N] float32 of one list per sample."""
        return torch.tensor([x for sample in values for x in sample], dtype=torch.float32)

    def per_sample(self, flat: Tensor) -> list[list[float]]:
        """One list per sample of [N] values."""
        return [part.tolist() for part in torch.split(flat, self.lengths)]


@dataclass(frozen=True)
class TokenValues:
    """[N] values of one global batch, as the loss needs them."""

    weights: Tensor
    advantages: Tensor
    logprobs_engine: Tensor
    logprobs_old: Tensor | None
    logprobs_ref: Tensor | None

    def pick(self, index: Tensor, device: str) -> TokenInputs:
        """The [R] values of one row, on the device."""

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index].to(device)

        return TokenInputs(
            weights=self.weights[index].to(device),
            advantages=self.advantages[index].to(device),
            logprobs_engine=self.logprobs_engine[index].to(device),
            logprobs_old=chosen(self.logprobs_old),
            logprobs_ref=chosen(self.logprobs_ref),
        )


@dataclass(frozen=True)
class MicroBatch:
    """One row on the device. `index` (CPU) says which of the N tokens its targets are; no inputs: no loss."""

    tokens: Tensor  # [T]
    row: RowParams
    index: Tensor  # [R]
    inputs: TokenInputs | None


def micro_batch(row: Row, table: TokenTable, values: TokenValues | None, device: str) -> MicroBatch:
    """Bring a row to the device, with what the loss needs if `values` are given."""
    index = table.index(row)
    inputs = None if values is None else values.pick(index, device)
    return MicroBatch(row.tokens.to(device), row_params(row, device), index, inputs)
