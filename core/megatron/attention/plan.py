"""Which tokens of a row attend to which, in the form that each attention kernel wants. Pure: torch, no Megatron.

Legend: T row tokens, S segments, K keys of all segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from core.megatron.attention.blocks import Blocks, Queries, padded, plan_blocks
from core.megatron.attention.copies import Copies
from core.megatron.attention.runs import Runs, plan_runs
from core.megatron.attention.squares import MULTIPLE, Squares, num_pairs, plan_squares, shape_of
from core.megatron.rows.packing import Segment
from core.megatron.rows.to_device import to_device

MAX_REPEATED = 1.4  # query-key pairs over those needed, up to which whole sequences are faster
WHOLE_MIN_LENGTH = 1024  # tokens per sequence, on average: below it the other kernel is as fast


@dataclass(frozen=True)
class Ragged:
    """The segments end to end, each with keys of its own."""

    cu_queries: Tensor  # [S + 1] int32, cumulative over the segments in row order
    cu_keys: Tensor  # [S + 1] int32
    keys: Copies  # K of them: for each segment its prefix, then itself
    max_queries: int
    max_keys: int


@dataclass(frozen=True)
class Whole:
    """The segments as whole sequences, each behind a copy of its prefix and padded at its end.

    Lengths are rounded up, because a kernel is prepared for each shape; padding comes after every token that counts,
    so causal attention does not see it. Sequences of the same padded length lie side by side, for one call.
    """

    calls: tuple[tuple[int, int], ...]  # (sequences, padded length), W tokens in all
    copies: Copies  # W of them; padding repeats the sequence's first
    own: Tensor  # [T] int64: where each row token is among the W
    is_row: bool  # they are the row itself, as it lies


class AttentionPlan:
    """One row. Each form is made on the device when a layer first asks for it, and serves all layers."""

    num_keys: int | None = None

    def __init__(self, segments: Sequence[Queries], device: str = "cpu", num_keys: int | None = None) -> None:
        """Keep the segments of the row.

        Args:
            segments: cover the row's tokens in order, each token once.
            num_keys: of all context-parallel ranks, where keys lie on these; None: keys are those of the tokens.
        """
        self.segments = segments
        self._device = device
        self.num_keys = num_keys
        self._blocks: dict[int | None, Blocks] = {}

    @cached_property
    def is_plain(self) -> bool:
        """Whether no segment has a prefix, so that keys are the row itself."""
        return self.num_keys is None and not any(s.prefix_length for s in self.segments)

    def blocks(self, window: int | None = None) -> Blocks:
        """The form for kernels that know no ragged sequences, where tokens see a window, or all before them."""
        if window not in self._blocks:
            self._blocks[window] = plan_blocks(self.segments, self._device, window)
        return self._blocks[window]

    @cached_property
    def runs(self) -> Runs:
        """The form for layers with a state. Only of a whole row."""
        assert self.num_keys is None, "a part of a row has no states"
        return plan_runs(cast(Sequence[Segment], self.segments), self._device)

    @cached_property
    def ragged(self) -> Ragged:
        """The form for kernels that know ragged sequences."""
        num_keys = key_counts(self.segments)
        return Ragged(
            cu_queries=self._cumulative([s.length for s in self.segments]),
            cu_keys=self._cumulative(num_keys),
            keys=Copies.of(ragged_keys(self.segments), self._device, of_rows=self.num_keys or 0),
            max_queries=max(s.length for s in self.segments),
            max_keys=max(num_keys),
        )

    @cached_property
    def whole(self) -> Whole | None:
        """The form for dense calls; None: too short, or the prefixes and padding would cost more than they gain, or the
        tokens before a piece are another rank's.
        """
        if self.num_keys is not None:
            return None
        own_lengths = key_counts(self.segments)
        lengths = [-(-length // MULTIPLE) * MULTIPLE for length in own_lengths]
        computed = sum(length * length / 2 for length in lengths)
        if computed > MAX_REPEATED * self._needed or sum(own_lengths) < WHOLE_MIN_LENGTH * len(lengths):
            return None
        return _whole(self.segments, lengths, self._device)

    @cached_property
    def squares(self) -> Squares | None:
        """The form for dense calls of a part of a row; None: too short, or padding would cost more than they gain."""
        if self.num_keys is None:
            return None
        computed = sum(num_pairs(shape_of(piece)) for piece in self.segments)
        num_tokens = sum(piece.length for piece in self.segments)
        if computed > MAX_REPEATED * self._needed or num_tokens < WHOLE_MIN_LENGTH * len(self.segments):
            return None
        return plan_squares(self.segments, self._device, self.num_keys)

    @property
    def _needed(self) -> float:
        """Pairs of query and key."""
        return sum(s.length * (s.prefix_length + s.length / 2) for s in self.segments)

    def _cumulative(self, lengths: Sequence[int]) -> Tensor:
        return to_device(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), self._device)


def key_counts(segments: Sequence[Queries]) -> list[int]:
    """Keys of each segment: its prefix and itself."""
    return [s.prefix_length + s.length for s in segments]


def ragged_keys(segments: Sequence[Queries]) -> Tensor:
    """[K] int64 row positions of all segments' keys, end to end."""
    return torch.cat([s.keys() for s in segments])


def _whole(segments: Sequence[Queries], lengths: Sequence[int], device: str) -> Whole:
    """Lay out a row for dense calls.

    Args:
        lengths: of the segments, each with its prefix, when padded.
    """
    order = sorted(range(len(segments)), key=lengths.__getitem__)
    rows, padding, first = [], [], 0
    own = torch.empty(sum(s.length for s in segments), dtype=torch.int64)
    for segment, length in ((segments[i], lengths[i]) for i in order):
        start, end = segment.prefix_length, segment.prefix_length + segment.length
        rows.append(padded([segment.keys()], length)[0])
        padding.append(torch.arange(length) >= end)
        own[segment.start : segment.start + segment.length] = torch.arange(first + start, first + end)
        first += length
    whole = torch.cat(rows)
    counts = Counter(lengths)
    return Whole(
        calls=tuple((counts[length], length) for length in sorted(counts)),
        copies=Copies.of(whole, device, torch.cat(padding)),
        own=to_device(own, device),
        is_row=torch.equal(whole, torch.arange(len(own))),
    )
