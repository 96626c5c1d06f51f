"""Which tokens of a row attend to which, in the form that each attention kernel wants. Pure: torch, no Megatron.

Legend: T row tokens, S segments, K keys of all segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.attention_blocks import Blocks, key_positions, padded, plan_blocks
from core.megatron.to_device import to_device
from core.packing import Segment

MAX_REPEATED = 1.4  # query-key pairs over those needed, up to which whole sequences are faster
WHOLE_MULTIPLE = 256  # tokens
WHOLE_MIN_LENGTH = 1024  # tokens per sequence, on average: below it the other kernel is as fast


@dataclass(frozen=True)
class Ragged:
    """The segments end to end, each with keys of its own."""

    cu_queries: Tensor  # [S + 1] int32, cumulative over the segments in row order
    cu_keys: Tensor  # [S + 1] int32
    packed_keys: Tensor  # [K] int64 row positions: for each segment its prefix, then itself
    copies: Tensor  # [K] int64: places in packed_keys, those of one row position together, in order of position
    first_copy: Tensor  # [T + 1] int64: where in `copies` those of each row position begin, and where all end
    max_queries: int
    max_keys: int


@dataclass(frozen=True)
class Whole:
    """The segments as whole sequences, each behind a copy of its prefix and padded at its end.

    Lengths are rounded up, because a kernel is prepared for each length; padding comes after every token that counts,
    so causal attention does not see it.
    """

    lengths: tuple[int, ...]  # padded, W in all
    rows: Tensor  # [W] int64 row positions; padding repeats the sequence's first
    own: Tensor  # [T] int64: where each row token is among the W


class AttentionPlan:
    """One row. Each form is made on the device when a layer first asks for it, and serves all layers."""

    def __init__(self, segments: Sequence[Segment], device: str = "cpu") -> None:
        """Args: segments: cover the row's tokens in order, each token once."""
        self._segments = segments
        self._device = device

    @cached_property
    def is_plain(self) -> bool:
        """No segment has a prefix: keys are the row itself."""
        return not any(s.prefix_length for s in self._segments)

    @cached_property
    def blocks(self) -> Blocks:
        """For kernels that know no ragged sequences."""
        return plan_blocks(self._segments, self._device)

    @cached_property
    def ragged(self) -> Ragged:
        """For kernels that do."""
        num_keys, positions = key_counts(self._segments), ragged_keys(self._segments)
        counts = positions.bincount()  # of each row position: every token is a key of its own segment
        packed_keys = to_device(positions, self._device)
        return Ragged(
            cu_queries=self._cumulative([s.length for s in self._segments]),
            cu_keys=self._cumulative(num_keys),
            packed_keys=packed_keys,
            copies=packed_keys.argsort(stable=True),
            first_copy=to_device(functional.pad(counts.cumsum(0), (1, 0)), self._device),
            max_queries=max(s.length for s in self._segments),
            max_keys=max(num_keys),
        )

    @cached_property
    def whole(self) -> Whole | None:
        """For one dense call each; None: too short, or the prefixes and padding would cost more than they gain."""
        segments = self._segments
        own_lengths = key_counts(segments)
        lengths = [-(-length // WHOLE_MULTIPLE) * WHOLE_MULTIPLE for length in own_lengths]
        needed = sum(s.length * (s.prefix_length + s.length / 2) for s in segments)
        computed = sum(length * length / 2 for length in lengths)
        if computed > MAX_REPEATED * needed or sum(own_lengths) < WHOLE_MIN_LENGTH * len(segments):
            return None
        rows = [padded([key_positions(s)], length)[0] for s, length in zip(segments, lengths, strict=True)]
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        own = [torch.arange(s.length) + start + s.prefix_length for s, start in zip(segments, starts[:-1], strict=True)]
        whole, places = (to_device(torch.cat(pieces), self._device) for pieces in (rows, own))
        return Whole(tuple(lengths), whole, places)

    def _cumulative(self, lengths: Sequence[int]) -> Tensor:
        return to_device(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), self._device)


def key_counts(segments: Sequence[Segment]) -> list[int]:
    """Of each segment: its prefix and itself."""
    return [s.prefix_length + s.length for s in segments]


def ragged_keys(segments: Sequence[Segment]) -> Tensor:
    """[K] int64 row positions of all segments' keys, end to end."""
    return torch.cat([key_positions(s) for s in segments])
