"""From the segments of a row to a few padded attention blocks. Pure: torch on the CPU, no Megatron.

Segments of similar size share a block, so that padding wastes little. Legend: T row tokens, N segments of a block,
Q and K their padded numbers of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.packing import Segment

MAX_WASTE = 1.5  # a block's padded query-key pairs over its own largest segment's, at most
MAX_REPEATED = 1.4  # query-key pairs over those needed, up to which whole sequences are faster
WHOLE_MULTIPLE = 256  # tokens
WHOLE_MIN_LENGTH = 1024  # tokens per sequence, on average: below it the other kernel is as fast
SMALL_PAIRS = 64 * 64  # segments below this are padded freely: one more call costs more than the padding


@dataclass(frozen=True)
class Block:
    """Segments attended in one call.

    `queries` and `keys` are row positions; padding repeats position 0 of the segment. `mask` is None where plain
    causal attention says it all.
    """

    queries: Tensor  # [N, Q] int64
    keys: Tensor  # [N, K] int64
    mask: Tensor | None  # [N, 1, Q, K] bool, True = attend


@dataclass(frozen=True)
class Whole:
    """The segments as whole sequences, each behind a copy of its prefix and padded at its end.

    Lengths are rounded up, because a kernel is prepared for each length; padding comes after every token that counts,
    so causal attention does not see it.
    """

    lengths: tuple[int, ...]  # padded, W in all
    rows: Tensor  # [W] int64 row positions; padding repeats the sequence's first
    own: Tensor  # [T] int64: where each row token is among the W


@dataclass(frozen=True)
class AttentionPlan:
    """Which row positions attend to which. `order[t]` is where row token t is in the blocks' outputs."""

    blocks: tuple[Block, ...]
    order: Tensor  # [T] int64
    cu_queries: Tensor  # [S + 1] int32, cumulative over the segments in row order
    cu_keys: Tensor  # [S + 1] int32
    packed_keys: Tensor  # int64 row positions: for each segment its prefix, then itself
    max_queries: int
    max_keys: int
    is_plain: bool  # no segment has a prefix: keys are the row itself
    whole: Whole | None  # None: too short, or the prefixes and padding would cost more than they gain

    def to(self, device: str) -> AttentionPlan:
        """The same plan with its tensors on `device`."""
        blocks = tuple(
            Block(b.queries.to(device), b.keys.to(device), None if b.mask is None else b.mask.to(device))
            for b in self.blocks
        )
        moved = {name: getattr(self, name).to(device) for name in ("order", "cu_queries", "cu_keys", "packed_keys")}
        whole = self.whole and replace(self.whole, rows=self.whole.rows.to(device), own=self.whole.own.to(device))
        return replace(self, blocks=blocks, whole=whole, **moved)


def plan_attention(segments: Sequence[Segment]) -> AttentionPlan:
    """Plan one row.

    Args:
        segments: cover the row's tokens in order, each token once.
    """
    num_keys = [s.prefix_length + s.length for s in segments]
    groups = _group(segments)
    order = torch.empty(sum(s.length for s in segments), dtype=torch.int64)
    blocks, offset = [], 0
    for group in groups:
        block = _block(group)
        for row, segment in enumerate(group):
            first = offset + row * block.queries.shape[1]
            order[segment.start : segment.start + segment.length] = torch.arange(first, first + segment.length)
        blocks.append(block)
        offset += block.queries.numel()
    return AttentionPlan(
        blocks=tuple(blocks),
        order=order,
        cu_queries=_cumulative([s.length for s in segments]),
        cu_keys=_cumulative(num_keys),
        packed_keys=torch.cat([_key_positions(s) for s in segments]),
        max_queries=max(s.length for s in segments),
        max_keys=max(num_keys),
        is_plain=not any(s.prefix_length for s in segments),
        whole=_whole(segments),
    )


def _whole(segments: Sequence[Segment]) -> Whole | None:
    own_lengths = [s.prefix_length + s.length for s in segments]
    lengths = [-(-length // WHOLE_MULTIPLE) * WHOLE_MULTIPLE for length in own_lengths]
    needed = sum(s.length * (s.prefix_length + s.length / 2) for s in segments)
    padded = sum(length * length / 2 for length in lengths)
    if padded > MAX_REPEATED * needed or sum(own_lengths) < WHOLE_MIN_LENGTH * len(segments):
        return None
    rows = [_padded([_key_positions(s)], length)[0] for s, length in zip(segments, lengths, strict=True)]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    own = [torch.arange(s.length) + start + s.prefix_length for s, start in zip(segments, starts[:-1], strict=True)]
    return Whole(tuple(lengths), torch.cat(rows), torch.cat(own))


def _group(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Plain causal segments apart from those with a prefix; within each kind, neighbours in size."""
    groups: list[list[Segment]] = []
    for with_prefix in (False, True):
        kind = [s for s in segments if bool(s.prefix_length) == with_prefix]
        group: list[Segment] = []
        for segment in sorted(kind, key=lambda s: (-s.length, -s.prefix_length)):
            if group and _wasteful([*group, segment]):
                groups.append(group)
                group = []
            group.append(segment)
        if group:
            groups.append(group)
    return groups


def _wasteful(group: Sequence[Segment]) -> bool:
    """Whether padding the last one to the group's largest costs too much."""
    padded = max(s.length for s in group) * max(s.prefix_length + s.length for s in group)
    own = min(s.length * (s.prefix_length + s.length) for s in group)
    return padded > SMALL_PAIRS and padded > MAX_WASTE * own


def _block(group: Sequence[Segment]) -> Block:
    num_queries = max(s.length for s in group)
    if not group[0].prefix_length:
        queries = _padded([torch.arange(s.start, s.start + s.length) for s in group], num_queries)
        return Block(queries, queries, None)
    num_keys = max(s.prefix_length + s.length for s in group)
    queries = _padded([torch.arange(s.start, s.start + s.length) for s in group], num_queries)
    keys = _padded([_key_positions(s) for s in group], num_keys)
    prefix = torch.tensor([s.prefix_length for s in group])[:, None, None]
    # query i sees its prefix and its own tokens up to i; a padded query also has at least the prefix, so no empty row
    mask = torch.arange(num_keys) <= prefix + torch.arange(num_queries)[:, None]
    length = torch.tensor([s.prefix_length + s.length for s in group])[:, None, None]
    return Block(queries, keys, (mask & (torch.arange(num_keys) < length))[:, None])


def _key_positions(segment: Segment) -> Tensor:
    prefix = torch.arange(segment.prefix_start, segment.prefix_start + segment.prefix_length)
    return torch.cat((prefix, torch.arange(segment.start, segment.start + segment.length)))


def _padded(rows: Sequence[Tensor], width: int) -> Tensor:
    return torch.stack([torch.cat((row, row[:1].expand(width - len(row)))) for row in rows])


def _cumulative(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
