"""A packed row over context-parallel ranks: which of its tokens each has, and what these attend to.

Each segment is cut into two chunks for every rank; the first rank has its first and its last, the next rank those
beside them. A token late in a segment sees most, so a rank with one from each end has as much attention to compute as
any other, whatever else the row holds: prompts, responses that share them, other groups. Pure: no process group.
Source: the two chunks of a rank are those of Megatron's and Llama 3's context parallelism (arXiv:2407.21783, section
3.3.2), here for each segment instead of for the whole row.
Legend: T row tokens, C ranks, P tokens of a rank (padded, so that all have the same number), R targets of the row, r of
these on a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.rows.packing import Row, Segment


class Piece(NamedTuple):
    """Neighbouring tokens of a rank: they see all keys before their own, and their own causally."""

    start: int  # among the tokens of the rank
    length: int
    key_places: Tensor  # [K] int64, among the C × P of all ranks; the last `length` are the tokens' own

    @property
    def prefix_length(self) -> int:
        """Keys before the tokens' own."""
        return len(self.key_places) - self.length

    def keys(self) -> Tensor:
        """[K] int64 places of the keys."""
        return self.key_places


@dataclass(frozen=True)
class RowPart:
    """What one rank computes of a row: as `Row`, of its own tokens. All tensors are int64 on the CPU."""

    tokens: Tensor  # [P]
    positions: Tensor  # [P]
    pieces: tuple[Piece, ...]  # cover the rank's tokens in order
    num_keys: int  # C × P
    logit_index: Tensor  # [r]
    targets: Tensor  # [r]
    own_targets: Tensor  # [r] which of the row's R they are
    num_targets: int  # R


class _Chunk(NamedTuple):
    segment: Segment
    first: int  # of the segment's tokens
    length: int


def split_row(row: Row, rank: int, ranks: int, multiple: int = 1) -> RowPart:
    """The part of one rank.

    Args:
        multiple: pad each rank's tokens to a multiple of this (tensor parallel size under sequence parallel).
    Returns:
        parts that differ between ranks in what they hold, but not in the number of tokens; some may have no target.
    Collective: none; every rank cuts alike.
    """
    chunks = deal(row.segments, ranks)
    longest = max(sum(chunk.length for chunk in own) for own in chunks)
    size = max(1, -(-longest // multiple)) * multiple
    places = _places(chunks, size, len(row.tokens))
    own = torch.cat([_row_positions(chunk) for chunk in chunks[rank]] or [torch.zeros(0, dtype=torch.int64)])
    predicting = places[row.logit_index]
    own_targets = (predicting // size == rank).nonzero()[:, 0]
    return RowPart(
        tokens=functional.pad(row.tokens[own], (0, size - len(own))),
        positions=functional.pad(row.positions[own], (0, size - len(own))),
        pieces=_pieces(chunks[rank], places, rank * size, size),
        num_keys=ranks * size,
        logit_index=predicting[own_targets] - rank * size,
        targets=row.targets[own_targets],
        own_targets=own_targets,
        num_targets=len(row.targets),
    )


def deal(segments: Sequence[Segment], ranks: int) -> list[list[_Chunk]]:
    """Each rank's chunks, in the order of the row. No rank has more than one token more than another."""
    dealt: list[list[_Chunk]] = [[] for _ in range(ranks)]
    totals = [0] * ranks
    for segment in segments:
        lengths, first = _chunk_lengths(segment.length, totals), 0
        for number, length in enumerate(lengths):
            chunks = dealt[_owner(number, ranks)]
            last = chunks[-1] if chunks else None
            if last is not None and last.segment is segment and last.first + last.length == first:
                chunks[-1] = last._replace(length=last.length + length)  # the last rank's two lie side by side
            elif length:
                chunks.append(_Chunk(segment, first, length))
            first += length
    return dealt


def _owner(number: int, ranks: int) -> int:
    return min(number, 2 * ranks - 1 - number)


def _chunk_lengths(length: int, totals: list[int]) -> list[int]:
    """Lengths of a segment's chunks; what is left over goes to ranks that have least, whose `totals` are kept."""
    ranks = len(totals)
    lengths = [length // (2 * ranks)] * (2 * ranks)
    for number, chunk in enumerate(lengths):
        totals[_owner(number, ranks)] += chunk
    for _ in range(length % (2 * ranks)):
        rank = min(range(ranks), key=totals.__getitem__)
        lengths[min((rank, 2 * ranks - 1 - rank), key=lengths.__getitem__)] += 1
        totals[rank] += 1
    return lengths


def _row_positions(chunk: _Chunk) -> Tensor:
    first = chunk.segment.start + chunk.first
    return torch.arange(first, first + chunk.length)


def _places(chunks: Sequence[Sequence[_Chunk]], size: int, num_tokens: int) -> Tensor:
    """[T] where each row token is among the C × P."""
    places = torch.empty(num_tokens, dtype=torch.int64)
    for rank, own in enumerate(chunks):
        place = rank * size
        for chunk in own:
            first = chunk.segment.start + chunk.first
            places[first : first + chunk.length] = torch.arange(place, place + chunk.length)
            place += chunk.length
    return places


def _pieces(chunks: Sequence[_Chunk], places: Tensor, first_place: int, size: int) -> tuple[Piece, ...]:
    pieces, start = [], 0
    for segment, first, length in chunks:
        prefix = places[segment.prefix_start : segment.prefix_start + segment.prefix_length]
        seen = places[segment.start : segment.start + first + length]
        pieces.append(Piece(start, length, torch.cat((prefix, seen))))
        start += length
    if start < size:  # padding sees itself
        pieces.append(Piece(start, size - start, torch.arange(first_place + start, first_place + size)))
    return tuple(pieces)
