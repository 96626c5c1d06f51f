"""Experts of rows' tokens: noted in the first pass over a step's samples, or those of the engine; replayed in passes.

Source: R2, arXiv:2507.18071, section 5.3; R3, arXiv:2510.11370. Left out: context parallel, under which a rank has a
part of a row.
Legend: T row tokens, F tokens of a sample that a model is fed: prompt and response but its last token, L layers, k
experts of a token, R targets of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from core.megatron.layers.routing import OWN
from core.megatron.rows.packing import Row, Unit
from core.samples import BYTE, TrainSample
from modelcfg import ModelShape

Routing = NDArray[np.integer[Any]]  # [F, L, k] experts of a sample's tokens, or of its first ones; 0 in dense layers


def row_routing(
    samples: Sequence[TrainSample], routings: Sequence[Routing | None], units: Sequence[Unit], num_tokens: int
) -> Tensor | None:
    """[T, L, k] int16 of the row of these units, `OWN` where nothing is known; None: nothing is known of any token.

    A prompt that several samples share has the experts of the first of those that know most of it. Routers choose for
    what lies behind the first tokens of a sample, where only these are known.

    Args:
        routings: one per sample.
        num_tokens: T, with padding.
    """
    found = (routings[index] for unit in units for index in unit.members)
    known = next((one for one in found if one is not None), None)
    if known is None:
        return None
    result, place = np.full((num_tokens, *known.shape[1:]), OWN, np.int16), 0
    for unit in units:
        prompt = len(samples[unit.members[0]].prompt_tokens)
        of_unit = [routings[index] for index in unit.members]
        _fill(result, place, max((one[:prompt] for one in of_unit if one is not None), key=len, default=None))
        place += prompt
        for index, routing in zip(unit.members, of_unit, strict=True):
            length = len(samples[index].response_tokens) - 1
            _fill(result, place, None if routing is None else routing[prompt : prompt + length])
            place += length
    return torch.from_numpy(result)


def known_by(
    samples: Sequence[TrainSample], routings: Sequence[Routing | None] | None, units: Sequence[Unit], num_tokens: int
) -> Tensor:
    """[T] int64, how many samples know experts of a token of the row: of a shared prompt perhaps several.

    Args as those of `row_routing`; routings None: no sample knows any.
    """
    result, place = np.zeros(num_tokens, np.int64), 0
    for unit in units:
        prompt = len(samples[unit.members[0]].prompt_tokens)
        lengths = [0 if routings is None or (one := routings[index]) is None else len(one) for index in unit.members]
        for length in lengths:
            result[place : place + min(prompt, length)] += 1
        place += prompt
        for index, length in zip(unit.members, lengths, strict=True):
            fed = len(samples[index].response_tokens) - 1
            result[place : place + min(fed, max(0, length - prompt))] = 1
            place += fed
    return torch.from_numpy(result)


def _fill(result: Routing, place: int, known: Routing | None) -> None:
    if known is not None:
        result[place : place + len(known)] = known


def engine_routing(sample: TrainSample, shape: ModelShape) -> Routing | None:
    """[K, L, k] experts that the engine chose for the first tokens of a sample, all that it told of; None: of none.

    Raises:
        ValueError: they are another model's.
    """
    if sample.routing is None:
        return None
    size, width = (shape.num_layers, shape.experts_per_token), sample.routing.shape[1]
    if width != shape.num_layers * shape.experts_per_token or sample.routing.max(initial=0) >= shape.num_experts:
        raise ValueError(
            f"the engine's experts are {width} numbers of a token up to {sample.routing.max(initial=0)}; wanted "
            f"{size[0]} layers of {size[1]} each, below {shape.num_experts}: is it an engine of another model?"
        )
    return sample.routing.reshape(-1, *size)


class NotedExperts:
    """The experts that were taken in one pass over samples, put together from all ranks."""

    def __init__(self, shape: ModelShape, everybody: Any) -> None:
        """Begin with none.

        Args:
            everybody: the group of all trainer ranks, over which tensors on the CPU travel.
        """
        self._shape, self._everybody = shape, everybody
        self._rows: list[tuple[Row, dict[int, Tensor]]] = []

    def of(self, row: Row) -> dict[int, Tensor]:
        """A place where the routers note what they take for a row of this rank, by layer."""
        self._rows.append((row, {}))
        return self._rows[-1][1]

    def of_samples(self, samples: Sequence[TrainSample], computed: Sequence[int]) -> list[Routing | None]:
        """What was taken for each sample in all layers; None for those that are not at the `computed` places.

        Args:
            samples: those that the rows' `sample_index` counts in; so on every rank.
        Collective: all trainer ranks. Each sample is told of by one replica, each layer by one of its stages.
        """
        lengths = [0] * len(samples)
        for place in computed:
            lengths[place] = max(0, len(samples[place].prompt_tokens) + len(samples[place].response_tokens) - 1)
        ends = np.cumsum([0, *lengths]).tolist()
        narrow = self._shape.num_experts <= BYTE
        size = (ends[-1], self._shape.num_layers, self._shape.experts_per_token)
        flat = torch.zeros(size, dtype=torch.uint8 if narrow else torch.int32)  # gloo adds up no 16 bits
        for row, noted in self._rows:
            for layer, experts in noted.items():
                for sample, fed in fed_tokens(row, samples):
                    flat[ends[sample] : ends[sample + 1], layer] = experts[fed].to(flat.dtype)
        dist.all_reduce(flat, group=self._everybody)
        whole = flat.numpy() if narrow else flat.numpy().astype(np.int16)
        chosen = set(computed)
        return [whole[a:b] if place in chosen else None for place, (a, b) in enumerate(pairwise(ends))]


def fed_tokens(row: Row, samples: Sequence[TrainSample]) -> Iterator[tuple[int, Tensor]]:
    """Each sample of a row, and the [F] places there of what the model is fed of it."""
    order, counts = torch.unique_consecutive(row.sample_index, return_counts=True)
    for sample, targets in zip(order.tolist(), torch.split(row.logit_index, counts.tolist()), strict=True):
        end = int(targets[0]) + 1  # of the prompt, whose last token predicts the first of the response
        prompt = torch.arange(end - len(samples[sample].prompt_tokens), end)
        yield sample, torch.cat([prompt, targets[1:]])
