"""Per-token values of a list of samples, laid end to end, and the micro-batches that index into them.

Legend: N response tokens of all samples, R targets of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.algorithm.loss import TokenInputs
from core.algorithm.value_loss import ValueInputs
from core.megatron.rows.packing import Row, Unit
from core.megatron.rows.to_device import to_device
from core.samples import TrainSample


class TokenTable:
    """Places of each sample's response tokens among all N."""

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

    def spread(self, values: Sequence[float | Sequence[float]]) -> Tensor:
        """[N] float32 of one value per sample, or one per token. (torch's repeat_interleave wakes all threads.)"""
        if any(isinstance(value, Sequence) for value in values):
            pairs = zip(values, self.lengths, strict=True)
            return self.flat([np.broadcast_to(np.asarray(value, np.float32), length) for value, length in pairs])
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float32), self.lengths))

    def flat(self, values: Sequence[Sequence[float] | NDArray[np.float32]]) -> Tensor:
        """[N] float32 of one list per sample."""
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *(np.asarray(v, np.float32) for v in values)]))

    def per_sample(self, flat: Tensor) -> list[list[float]]:
        """One list per sample of [N] values."""
        return [part.tolist() for part in torch.split(flat, self.lengths)]


class Picks(Protocol):
    """[N] values of one global batch, of which a row gets its own."""

    def pick(self, index: Tensor, sample_index: Tensor, num_samples: int, device: str) -> TokenInputs | ValueInputs:
        """The [R] values of one row, on the device: what its loss needs."""
        ...


@dataclass(frozen=True)
class TokenValues:
    """[N] values of one global batch, as the loss needs them."""

    weights: Tensor
    advantages: Tensor
    logprobs_engine: Tensor
    logprobs_old: Tensor | None
    logprobs_ref: Tensor | None

    def pick(self, index: Tensor, sample_index: Tensor, num_samples: int, device: str) -> TokenInputs:
        """The [R] values of one row, on the device.

        Args:
            sample_index: [R] which of the `num_samples` of the global batch each is of.
        """

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else to_device(values[index], device)

        return TokenInputs(
            weights=to_device(self.weights[index], device),
            advantages=to_device(self.advantages[index], device),
            logprobs_engine=to_device(self.logprobs_engine[index], device),
            sample_index=to_device(sample_index, device),
            num_samples=num_samples,
            logprobs_old=chosen(self.logprobs_old),
            logprobs_ref=chosen(self.logprobs_ref),
        )


def token_values(
    samples: Sequence[TrainSample], table: TokenTable, weights: Sequence[NDArray[np.float32]]
) -> TokenValues:
    """Values of a global batch, None where a sample has none.

    Args:
        weights: one array per sample, of each of its tokens in the loss.
    """

    def optional(values: list[Sequence[float] | None]) -> Tensor | None:
        known = [v for v in values if v is not None]
        return table.flat(known) if len(known) == len(values) else None

    return TokenValues(
        weights=table.flat(weights),
        advantages=table.spread([s.advantage for s in samples]),
        logprobs_engine=table.flat([s.logprobs_engine for s in samples]),
        logprobs_old=optional([s.logprobs_old for s in samples]),
        logprobs_ref=optional([s.logprobs_ref for s in samples]),
    )


@dataclass(frozen=True)
class MicroBatch:
    """A row. `index` says which of the N tokens its targets are; `inputs` are on the device, None: there is no loss."""

    row: Row
    index: Tensor  # [R]
    inputs: TokenInputs | ValueInputs | None


def micro_batch(row: Row, table: TokenTable, values: Picks | None, device: str) -> MicroBatch:
    """A row, with what the loss needs of it if `values` are given."""
    index = table.index(row)
    inputs = None if values is None else values.pick(index, row.sample_index, len(table.lengths), device)
    return MicroBatch(row, index, inputs)


class MicroBatches:
    """The rows of one rank, each built in its turn: the host packs it while the device computes the one before."""

    def __init__(self, plan: Sequence[Sequence[Unit]], build: Callable[[Sequence[Unit]], MicroBatch]) -> None:
        self._plan, self._build = plan, build

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[MicroBatch]:
        return map(self._build, self._plan)
