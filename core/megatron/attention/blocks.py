"""A few padded attention blocks, made from the segments of a row, for kernels that know no ragged sequences.

Segments of similar size share a block, so that padding wastes little. Pure: torch on the CPU, no Megatron. Legend: T
row tokens, N segments of a block, Q and K their padded numbers of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from core.megatron.sizes.activations import MAX_WASTE

SMALL_PAIRS = 64 * 64  # segments below this are padded freely: one more call costs more than the padding


class Queries(Protocol):
    """Neighbouring tokens that see all keys before their own, and their own causally: a segment, or a piece of one."""

    @property
    def start(self) -> int:
        """The first token."""
        ...

    @property
    def length(self) -> int:
        """Number of tokens."""
        ...

    @property
    def prefix_length(self) -> int:
        """Keys before the tokens' own."""
        ...

    def keys(self) -> Tensor:
        """[K] int64 places of the keys."""
        ...


@dataclass(frozen=True)
class Block:
    """Segments attended in one call.

    `queries` and `keys` are places of tokens and of keys; padding repeats position 0 of the segment. `mask` is None
    where plain causal attention says it all. A padded query sees what the segment's last one sees.
    """

    queries: Tensor  # [N, Q] int64
    keys: Tensor  # [N, K] int64
    mask: Tensor | None  # [N, 1, Q, K] bool, True = attend

    def to(self, device: str) -> Block:
        """The same block on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return Block(self.queries.to(device), self.keys.to(device), mask)


@dataclass(frozen=True)
class Blocks:
    """The whole row. `order[t]` is where row token t is in the blocks' outputs, laid end to end."""

    blocks: tuple[Block, ...]
    order: Tensor  # [T] int64


def plan_blocks(segments: Sequence[Queries], device: str, window: int | None = None) -> Blocks:
    """Blocks of a row, on `device`.

    Args:
        segments: cover the row's tokens in order, each token once.
        window: number of tokens that a token sees, itself among them; None: all before it.
    """
    order = torch.empty(sum(s.length for s in segments), dtype=torch.int64)
    blocks, offset = [], 0
    for group in _group(segments):
        block = _block(group, window)
        for row, segment in enumerate(group):
            first = offset + row * block.queries.shape[1]
            order[segment.start : segment.start + segment.length] = torch.arange(first, first + segment.length)
        blocks.append(block.to(device))
        offset += block.queries.numel()
    return Blocks(tuple(blocks), order.to(device))


def padded(rows: Sequence[Tensor], width: int) -> Tensor:
    """[N, width]; padding repeats each row's first element."""
    return torch.stack([torch.cat((row, row[:1].expand(width - len(row)))) for row in rows])


def _group(segments: Sequence[Queries]) -> list[list[Queries]]:
    """Plain causal segments apart from those with a prefix; within each kind, neighbours in size."""
    groups: list[list[Queries]] = []
    for with_prefix in (False, True):
        kind = [s for s in segments if bool(s.prefix_length) == with_prefix]
        group: list[Queries] = []
        for segment in sorted(kind, key=lambda s: (-s.length, -s.prefix_length)):
            if group and _wasteful([*group, segment]):
                groups.append(group)
                group = []
            group.append(segment)
        if group:
            groups.append(group)
    return groups


def _wasteful(group: Sequence[Queries]) -> bool:
    """Whether padding the last one to the group's largest costs too much."""
    widest = max(s.length for s in group) * max(s.prefix_length + s.length for s in group)
    own = min(s.length * (s.prefix_length + s.length) for s in group)
    return widest > SMALL_PAIRS and widest > MAX_WASTE * own


def _block(group: Sequence[Queries], window: int | None) -> Block:
    num_queries = max(s.length for s in group)
    queries = padded([torch.arange(s.start, s.start + s.length) for s in group], num_queries)
    num_keys = max(s.prefix_length + s.length for s in group)
    keys = padded([s.keys() for s in group], num_keys)
    if not group[0].prefix_length and (window is None or num_keys <= window):
        return Block(queries, keys, None)
    prefix, length = (torch.tensor(x)[:, None] for x in zip(*((s.prefix_length, s.length) for s in group), strict=True))
    # each query's place among its keys: it sees its prefix and its own tokens up to itself, or the last of these
    place = (prefix + torch.minimum(torch.arange(num_queries), length - 1))[..., None]  # [N, Q, 1]
    mask = torch.arange(num_keys) <= place
    if window is not None:
        mask &= torch.arange(num_keys) > place - window
    return Block(queries, keys, mask[:, None])
