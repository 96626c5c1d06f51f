"""Weights for engines that compute in few bits: the trainer's, quantised on the rank's device, bucket by bucket.

Numbers and factors of a weight are those of a file that `ebbtide export --dtype` writes, bit by bit: one
function makes both. It is called for many small weights at once and for parts of large ones, which takes few kernels
and little memory: a block is the same wherever its weight begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from core.pretrained.packing import Packing
from core.sglang.payload import NamedTensors
from core.weights.sync import WeightSource

ELEMENTS = 16 * 2**20  # that are quantised at once: 64 MiB in float32, and twice that on the way


class Quantised:
    """A trainer's weights, those of its linear layers in few bits. Collective: as the trainer's own."""

    def __init__(self, source: WeightSource, packing: Packing) -> None:
        """Quantise what comes from `source`."""
        self._source, self._packing = source, packing

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """The trainer's buckets, with a weight's numbers and factors where the weight was."""
        for bucket in self._source.named_buckets(max_bytes):
            yield quantised(bucket, self._packing)


class _Piece(NamedTuple):
    """Rows of a weight, in whole blocks but for a weight's last."""

    name: str
    rows: Tensor


@torch.no_grad()
def quantised(tensors: NamedTensors, packing: Packing) -> list[tuple[str, Tensor]]:
    """The tensors with what stands for those that are in few bits, in their order."""
    whole = [(name, tensor) for name, tensor in tensors if name in packing.names]
    made: dict[str, list[dict[str, Tensor]]] = {name: [] for name, _ in whole}
    pieces = (piece for name, tensor in whole for piece in _pieces(name, tensor, packing))
    for batch in _batches(pieces, packing.scheme.rows):
        for piece, parts in zip(batch, _quantise(batch, packing), strict=True):
            made[piece.name].append(parts)
    found: list[tuple[str, Tensor]] = []
    for name, tensor in tensors:
        found += [(name + end, part) for end, part in _joined(made[name]).items()] if name in made else [(name, tensor)]
    return found


def _pieces(name: str, weight: Tensor, packing: Packing) -> Iterator[_Piece]:
    high, (_, columns) = packing.scheme.rows, weight.shape
    for rows in torch.split(weight, max(1, ELEMENTS // columns // high) * high):
        yield _Piece(name, rows)


def _batches(pieces: Iterable[_Piece], high: int) -> Iterator[list[_Piece]]:
    """Pieces of the same width, up to ELEMENTS of them at once; what ends within a block is the last of them."""
    by_width = sorted(pieces, key=lambda piece: piece.rows.shape[1])
    for _, alike in groupby(by_width, key=lambda piece: piece.rows.shape[1]):
        batch: list[_Piece] = []
        for piece in alike:
            if batch and (len(batch[-1].rows) % high or sum(one.rows.numel() for one in (*batch, piece)) > ELEMENTS):
                yield batch
                batch = []
            batch.append(piece)
        yield batch


def _quantise(batch: list[_Piece], packing: Packing) -> list[dict[str, Tensor]]:
    """What stands for each piece, quantised as one weight below the other."""
    made = packing.make(torch.cat([piece.rows for piece in batch]))
    heights = [piece.rows.shape[0] for piece in batch]
    in_blocks = [-(-height // packing.scheme.rows) for height in heights]
    numbers = packing.scheme.numbers
    split = {end: torch.split(part, heights if end == numbers else in_blocks) for end, part in made.items()}
    return [{end: parts[place] for end, parts in split.items()} for place in range(len(batch))]


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parts of a weight, of those of its pieces."""
    if len(pieces) == 1:
        return pieces[0]
    return {end: _below([piece[end] for piece in pieces]) for end in pieces[0]}


def _below(parts: list[Tensor]) -> Tensor:
    """One below the other, byte by byte: not every device has that for fp8."""
    return torch.cat([part.view(torch.uint8) for part in parts]).view(parts[0].dtype)
