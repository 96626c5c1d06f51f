"""Samples to packed rows: the micro-batches of one global batch, balanced over data-parallel ranks.

A row is one packed micro-batch. With `share_prompts` it holds a prompt once, followed by several responses of its
group; a response attends to the prompt's tokens and to itself. The last token of a response predicts nothing, so it
is a target but never an input. Pure: no Megatron, no process group; every rank computes the same plan.
Legend: T row tokens, R targets of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.megatron.layers.routing import RowCount
from core.samples import TrainSample

Ids = NDArray[np.int64]

PAIRS_PER_TOKEN = 4096  # query-key pairs that cost about as much as one token's linear layers (hidden size ~ 700)


class Segment(NamedTuple):
    """A run of row tokens that attends causally to itself, after all of its prefix range."""

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0

    def keys(self) -> Tensor:
        """[K] int64 row positions of what it attends to: its prefix, then itself."""
        prefix = torch.arange(self.prefix_start, self.prefix_start + self.prefix_length)
        return torch.cat((prefix, torch.arange(self.start, self.start + self.length)))


@dataclass(frozen=True)
class Row:
    """One packed micro-batch.

    `logit_index[r]` is the row position whose hidden state predicts `targets[r]`, which is token `token_index[r]` of
    the response of sample `sample_index[r]`. All tensors are int64 on the CPU.
    """

    tokens: Tensor  # [T]
    positions: Tensor  # [T], restarting per sequence
    segments: tuple[Segment, ...]  # cover every row token exactly once
    logit_index: Tensor  # [R]
    targets: Tensor  # [R]
    sample_index: Tensor  # [R]
    token_index: Tensor  # [R]
    routing: Tensor | None = None  # [T, L, k] int16: see `row_routing`; None: routers choose for all tokens
    counted: RowCount | None = None  # see `RowRouting`


class Unit(NamedTuple):
    """Samples that stay together in one row because they share a prompt."""

    members: tuple[int, ...]
    num_tokens: int
    cost: float


def pack(
    samples: Sequence[TrainSample],
    max_tokens: int,
    data_parallel: int = 1,
    share_prompts: bool = True,
    multiple: int = 1,
) -> list[list[Row]]:
    """Rows of every data-parallel rank.

    Args:
        samples: one global batch.
        max_tokens: token budget of a row; a single sample over it gets a row of its own.
        share_prompts: hold the prompt of a group once per row.
        multiple: pad each row to a multiple of this (tensor parallel size under sequence parallel).
    Returns:
        `data_parallel` lists of equal length; a rank without work gets a row without targets.
    Collective: none; the result depends on the arguments alone.
    """
    plan = plan_rows(samples, max_tokens, data_parallel, share_prompts)
    return [[build_row(samples, units, multiple) for units in rows] for rows in plan]


def plan_rows(
    samples: Sequence[TrainSample], max_tokens: int, data_parallel: int, share_prompts: bool
) -> list[list[list[Unit]]]:
    """Which units go to which row of which rank: longest-processing-time first, under the token budget.

    Splitting a group repeats its prompt, so it is done only where it shortens the slowest rank.
    """
    units = _units(samples, max_tokens, share_prompts)
    best, best_cost = _assign(units, max_tokens, data_parallel)
    for _ in range(2 * data_parallel if data_parallel > 1 else 0):
        if not _split_costliest(samples, units):
            break
        plan, cost = _assign(units, max_tokens, data_parallel)
        if cost < best_cost:
            best, best_cost = plan, cost
    return best


def build_row(samples: Sequence[TrainSample], units: Sequence[Unit], multiple: int = 1) -> Row:
    """Lay the units out one after the other and pad; padding attends to itself and predicts nothing."""
    parts = _RowParts()
    for unit in units:
        parts.add(samples, unit.members)
    parts.pad(multiple)
    return parts.row()


class _RowParts:
    """A row under construction, in pieces: number by number in Python a batch took four times as long."""

    def __init__(self) -> None:
        self.length = 0
        self.segments: list[Segment] = []
        self.tokens: list[Ids] = []
        self.positions: list[Ids] = []
        self.logit_index: list[Ids] = []
        self.targets: list[Ids] = []
        self.sample_index: list[Ids] = []
        self.token_index: list[Ids] = []

    def add(self, samples: Sequence[TrainSample], members: Sequence[int]) -> None:
        """A prompt, then the responses of all members; a lone member is one plain causal segment."""
        prompt = np.asarray(samples[members[0]].prompt_tokens, np.int64)
        start = self.length
        self._append(prompt, 0)
        if len(members) > 1:
            self.segments.append(Segment(start, len(prompt)))
        for index in members:
            first = self.length
            response = np.asarray(samples[index].response_tokens, np.int64)
            self._append(response[:-1], len(prompt))
            if len(members) == 1:
                self.segments.append(Segment(start, self.length - start))
            elif len(response) > 1:
                self.segments.append(Segment(first, len(response) - 1, start, len(prompt)))
            self._add_targets(index, response, start + len(prompt) - 1, first)

    def _append(self, tokens: Ids, position: int) -> None:
        self.tokens.append(tokens)
        self.positions.append(np.arange(position, position + len(tokens)))
        self.length += len(tokens)

    def _add_targets(self, sample: int, response: Ids, prompt_end: int, first: int) -> None:
        predicting = np.arange(first - 1, first - 1 + len(response))
        predicting[0] = prompt_end
        self.logit_index.append(predicting)
        self.targets.append(response)
        self.sample_index.append(np.full(len(response), sample))
        self.token_index.append(np.arange(len(response)))

    def pad(self, multiple: int) -> None:
        missing = -self.length % multiple if self.length else multiple
        if missing:
            self.segments.append(Segment(self.length, missing))
            self._append(np.zeros(missing, np.int64), 0)

    def row(self) -> Row:
        def column(pieces: list[Ids]) -> Tensor:
            return torch.from_numpy(np.concatenate(pieces) if pieces else np.zeros(0, np.int64))

        return Row(
            tokens=column(self.tokens),
            positions=column(self.positions),
            segments=tuple(self.segments),
            logit_index=column(self.logit_index),
            targets=column(self.targets),
            sample_index=column(self.sample_index),
            token_index=column(self.token_index),
        )


def _units(samples: Sequence[TrainSample], max_tokens: int, share_prompts: bool) -> list[Unit]:
    """Groups cut to the token budget, or single samples. A sample without response has nothing to learn from."""
    groups: dict[object, list[int]] = {}
    for index, sample in enumerate(samples):
        if not sample.prompt_tokens:
            raise ValueError(f"sample {index} of group {sample.group} has an empty prompt: wanted at least one token")
        if sample.response_tokens:
            key = (sample.group, tuple(sample.prompt_tokens)) if share_prompts else index
            groups.setdefault(key, []).append(index)
    return [_unit(samples, part) for members in groups.values() for part in _cut(samples, members, max_tokens)]


def _cut(samples: Sequence[TrainSample], members: list[int], max_tokens: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    room = max_tokens - len(samples[members[0]].prompt_tokens)
    used = 0
    for index in members:
        length = len(samples[index].response_tokens) - 1
        if parts[-1] and used + length > room:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += length
    return parts


def _unit(samples: Sequence[TrainSample], members: Sequence[int]) -> Unit:
    prompt = len(samples[members[0]].prompt_tokens)
    lengths = [len(samples[index].response_tokens) - 1 for index in members]
    pairs = prompt * prompt / 2 + sum(length * (prompt + length / 2) for length in lengths)
    num_tokens = prompt + sum(lengths)
    return Unit(tuple(members), num_tokens, num_tokens + pairs / PAIRS_PER_TOKEN)


def _split_costliest(samples: Sequence[TrainSample], units: list[Unit]) -> bool:
    """Halve the costliest unit of several samples, in place; False if there is none."""
    candidates = [unit for unit in units if len(unit.members) > 1]
    if not candidates:
        return False
    unit = max(candidates, key=lambda u: (u.cost, -u.members[0]))
    where, half = units.index(unit), len(unit.members) // 2
    units[where : where + 1] = [_unit(samples, unit.members[:half]), _unit(samples, unit.members[half:])]
    return True


def _assign(units: Sequence[Unit], max_tokens: int, data_parallel: int) -> tuple[list[list[list[Unit]]], float]:
    """Rows per rank, as few as fit, and the cost of the costliest rank."""
    total = sum(unit.num_tokens for unit in units)
    per_rank = max(1, -(-total // (max_tokens * data_parallel)))
    while (bins := _fill(units, per_rank * data_parallel, max_tokens)) is None:
        per_rank += 1
    bins.sort(key=lambda b: -_cost(b))  # stable, hence deterministic
    ranks: list[list[list[Unit]]] = [[] for _ in range(data_parallel)]
    for number, content in enumerate(bins):  # snake order: the ends of each turn meet on the same rank
        turn, place = divmod(number, data_parallel)
        ranks[place if turn % 2 == 0 else data_parallel - 1 - place].append(content)
    return ranks, max(sum(_cost(b) for b in rank) for rank in ranks)


def _fill(units: Sequence[Unit], num_bins: int, max_tokens: int) -> list[list[Unit]] | None:
    """Costliest unit first, each into the cheapest bin with room; None if one does not fit."""
    bins: list[list[Unit]] = [[] for _ in range(num_bins)]
    tokens, costs = [0] * num_bins, [0.0] * num_bins
    for unit in sorted(units, key=lambda u: (-u.cost, u.members[0])):
        fitting = [b for b in range(num_bins) if not bins[b] or tokens[b] + unit.num_tokens <= max_tokens]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda b: costs[b])
        bins[chosen].append(unit)
        tokens[chosen] += unit.num_tokens
        costs[chosen] += unit.cost
    return [sorted(content, key=lambda u: u.members[0]) for content in bins]


def _cost(content: Sequence[Unit]) -> float:
    return sum(unit.cost for unit in content)
