"""Runs of states over the tokens of a row: chunks of its segments, and what each segment begins with.

A segment with a prefix begins with the state in which the prefix, another segment of the row, has ended. So the
prefixes make a first wave, which runs through before the second begins. Within a wave all segments run at once, chunk
by chunk; the longest come first, so that those that still run at a step are the first of them.
Pure: torch, no Megatron. Legend: T row tokens, C tokens of a chunk, N chunks of the row, the first wave's first, and of
a wave the first chunks of all its segments first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from core.megatron.rows.packing import Segment
from core.megatron.rows.to_device import to_device
from core.megatron.sizes.activations import CHUNK


@dataclass(frozen=True)
class Wave:
    """Segments that run at once.

    Attributes:
        running: of each step the number of segments that have a chunk there; no number is larger than the one before.
        origins: which of the earlier wave's segments, in its order, each of them goes on from; None: from nothing.
    """

    running: tuple[int, ...]
    origins: Tensor | None


@dataclass(frozen=True)
class Runs:
    """A row, as layers with a state want it.

    Attributes:
        num_chunks: N.
        places: [T] int64 where each row token is among the N × C of all chunks, some of which hold none.
        previous: [T + 1] int64 position of the token before it in its sequence; T where there is none.
    """

    num_chunks: int
    places: Tensor
    previous: Tensor
    waves: tuple[Wave, ...]

    def before(self, number: int) -> list[Tensor]:
        """[T] positions of the tokens 1, 2, ... `number` before each; T where there is none."""
        chain = accumulate(range(number - 1), lambda found, _: self.previous[found], initial=self.previous[:-1])
        return list(chain) if number else []


def plan_runs(segments: Sequence[Segment], device: str) -> Runs:
    """Chunks of a row, on the device.

    Args:
        segments: cover the row's tokens in order, each token once; a prefix is a whole segment without one.
    """
    num_tokens = sum(s.length for s in segments)
    firsts = _longest_first(s for s in segments if not s.prefix_length)
    seconds = _longest_first(s for s in segments if s.prefix_length)
    waves, order = [_wave(firsts, None)], _in_steps(firsts)
    if seconds:
        place = {(s.start, s.length): index for index, s in enumerate(firsts)}
        origins = torch.tensor([place[s.prefix_start, s.prefix_length] for s in seconds])
        waves.append(_wave(seconds, to_device(origins, device)))
        order += _in_steps(seconds)
    places = torch.empty(num_tokens, dtype=torch.int64)
    for chunk, (start, length) in enumerate(order):
        places[start : start + length] = torch.arange(chunk * CHUNK, chunk * CHUNK + length)
    return Runs(len(order), to_device(places, device), to_device(_previous(segments), device), tuple(waves))


def _longest_first(segments: Iterable[Segment]) -> list[Segment]:
    return sorted(segments, key=lambda s: -s.length)


def _num_chunks(segment: Segment) -> int:
    return -(-segment.length // CHUNK)


def _wave(segments: Sequence[Segment], origins: Tensor | None) -> Wave:
    """The wave of segments, the longest first."""
    steps = range(_num_chunks(segments[0]))
    return Wave(tuple(sum(_num_chunks(s) > step for s in segments) for step in steps), origins)


def _in_steps(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """First token and number of tokens of each chunk of a wave, step by step."""
    return [
        (segment.start + done, min(CHUNK, segment.length - done))
        for done in range(0, segments[0].length, CHUNK)
        for segment in segments
        if segment.length > done
    ]


def _previous(segments: Sequence[Segment]) -> Tensor:
    """[T + 1] the token before each."""
    num_tokens = sum(s.length for s in segments)
    previous = torch.arange(-1, num_tokens)
    for segment in segments:
        end = segment.prefix_start + segment.prefix_length - 1
        previous[segment.start] = end if segment.prefix_length else num_tokens
    previous[num_tokens] = num_tokens
    return previous
