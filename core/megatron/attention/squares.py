"""Pieces of sequences for kernels that know only whole rectangles and causal squares.

    keys      0 ──────────────── before ─────────── before + length
    queries            all see all of these │ and these causally

A piece sees all keys before its own. Those that fill whole multiples are its rectangle. The rest, fewer than a
multiple, begin its square, whose first queries are padding then, as are the last ones. So both have few shapes, for a
kernel is prepared for each, and padding is seen by padding alone.
Pure: torch, no Megatron. Legend: T row tokens, W queries of all squares, K keys of all pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.megatron.attention.blocks import Queries, padded
from core.megatron.attention.copies import Copies
from core.megatron.rows.to_device import to_device

MULTIPLE = 256  # tokens


class Call(NamedTuple):
    """Pieces of one shape.

    Attributes:
        number: pieces.
        before: keys that all queries of a piece see.
        length: its queries, and the keys behind those, which they see causally.
    """

    number: int
    before: int
    length: int


@dataclass(frozen=True)
class Squares:
    """A row's pieces, those of a shape side by side.

    Attributes:
        queries: [W] int64 row positions; padding repeats a piece's first.
        own: [T] int64: where each row token is among the W.
        keys: K of them, of each piece `before` and then `length`.
        is_row: whether the queries are the row itself, as it lies.
    """

    calls: tuple[Call, ...]
    queries: Tensor
    own: Tensor
    keys: Copies
    is_row: bool


def shape_of(piece: Queries) -> Call:
    """The call of a piece by itself."""
    before = piece.prefix_length // MULTIPLE * MULTIPLE
    return Call(1, before, -(-(piece.prefix_length - before + piece.length) // MULTIPLE) * MULTIPLE)


def num_pairs(call: Call) -> float:
    """Pairs of query and key that are computed."""
    return call.number * call.length * (call.before + call.length / 2)


def plan_squares(pieces: Sequence[Queries], device: str, num_keys: int | None) -> Squares:
    """Rectangles and squares of a row, on the device.

    Args:
        pieces: cover the row's tokens in order, each token once.
        num_keys: of which the pieces' keys are some; None: the row's own.
    """
    shapes = Counter(map(shape_of, pieces))
    num_tokens = sum(piece.length for piece in pieces)
    queries, keys, padding, own, first = [], [], [], torch.empty(num_tokens, dtype=torch.int64), 0
    for piece in sorted(pieces, key=shape_of):
        _, before, length = shape_of(piece)
        begin, tokens = piece.prefix_length - before, torch.arange(piece.start, piece.start + piece.length)
        queries.append(torch.cat((tokens[:1].expand(begin), padded([tokens], length - begin)[0])))
        own[tokens] = torch.arange(first + begin, first + begin + piece.length)
        keys.append(padded([piece.keys()], before + length)[0])
        padding.append(torch.arange(before + length) >= piece.prefix_length + piece.length)
        first += length
    whole = torch.cat(queries)
    return Squares(
        calls=tuple(Call(shapes[one], one.before, one.length) for one in sorted(shapes)),
        queries=to_device(whole, device),
        own=to_device(own, device),
        keys=Copies.of(torch.cat(keys), device, torch.cat(padding), of_rows=num_keys or num_tokens),
        is_row=torch.equal(whole, torch.arange(num_tokens)),
    )
