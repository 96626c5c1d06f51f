"""The gated delta rule over the chunks of a row. Plain torch, in float32.

A state S, a matrix from keys to values, fades by a factor exp(g) with each token, then what it has for the token's key
is moved by a share b, the token's strength, towards its value; the query reads what the token leaves:

    S <- exp(g) S        S <- S + k (b (v - k S))^T        o = q S

Source: Gated Delta Networks, arXiv:2412.06464, equation 10, and section 3.3 for the form in chunks. Within a chunk let
G be the sum of g up to a token, and u the vector that the token writes. Then

    S = exp(G) S0 + sum over tokens i up to it of exp(G - G_i) k_i u_i^T
    u = b v - b exp(G) k S0 - sum over earlier i of b exp(G - G_i) (k . k_i) u_i

which is a triangular system for the u of a chunk: solved for all chunks at once, but for the part with S0.
Legend: T row tokens, N chunks, C tokens of a chunk, h key heads, r states of each, d channels of a key, v of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from core.megatron.attention.runs import Runs
from core.megatron.sizes.activations import CHUNK


@dataclass(frozen=True)
class _Chunks:
    """What a step needs of its chunks; all have [N, h, r] in front.

    Attributes:
        written: [C, v] what tokens write where the chunk begins with nothing.
        taken: [C, d] what, multiplied by the state that the chunk begins with, they write less.
        reading: [C, d] queries of that state. within: [C, C] how much of what a token writes another reads.
        kept: [1, 1] what the chunk leaves of that state. keys: [C, d] faded up to the chunk's end.
    """

    written: Tensor
    taken: Tensor
    reading: Tensor
    within: Tensor
    kept: Tensor
    keys: Tensor

    def steps(self, counts: list[int]) -> list[_Chunks]:
        """The chunks of each step."""
        parts = (self.written, self.taken, self.reading, self.within, self.kept, self.keys)
        return [_Chunks(*one) for one in zip(*(torch.split(part, counts) for part in parts), strict=True)]


def delta_rule(query: Tensor, key: Tensor, value: Tensor, decay: Tensor, strength: Tensor, runs: Runs) -> Tensor:
    """[T, h, r, v] float32 that the queries read.

    Args:
        query: [T, h, d], key: [T, h, d], value: [T, h, r, v], decay: [T, h, r] g, at most 0, strength: [T, h, r] b; all
            float32.
    """
    counts = [number for wave in runs.waves for number in wave.running]
    steps = iter(_chunks(query, key, value, decay, strength, runs).steps(counts))
    outputs: list[Tensor] = []
    ends: Tensor | None = None
    for wave in runs.waves:
        if ends is None or wave.origins is None:
            state = value.new_zeros(wave.running[0], *value.shape[1:3], key.shape[-1], value.shape[-1])
        else:
            state = ends.index_select(0, wave.origins)
        ended = []
        for _, following in pairwise((*wave.running, 0)):
            output, state = _step(next(steps), state)
            outputs.append(output)
            ended.append(state[following:])
            state = state[:following]
        ends = torch.cat(ended[::-1])
    read = torch.cat(outputs).permute(0, 3, 1, 2, 4).flatten(0, 1)  # [N C, h, r, v]
    return read.index_select(0, runs.places)


def _step(chunk: _Chunks, state: Tensor) -> tuple[Tensor, Tensor]:
    """What tokens of a step read, [., h, r, C, v], and the states that they leave, [., h, r, d, v]."""
    written = chunk.written - chunk.taken @ state
    output = chunk.reading @ state + chunk.within @ written
    return output, chunk.kept * state + chunk.keys.mT @ written


def _chunks(query: Tensor, key: Tensor, value: Tensor, decay: Tensor, strength: Tensor, runs: Runs) -> _Chunks:
    query, key = (_gather(one, runs).transpose(1, 2)[:, :, None] for one in (query, key))  # [N, h, 1, C, d]
    value = _gather(value, runs).permute(0, 2, 3, 1, 4)  # [N, h, r, C, v]
    decay, strength = (_gather(one, runs).permute(0, 2, 3, 1) for one in (decay, strength))  # [N, h, r, C]
    total, strength = decay.cumsum(-1), strength[..., None]
    fade = total.exp()[..., None]
    size = total.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1)
    between = (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()  # [N, h, r, C, C]
    system = (strength * (key @ key.mT) * between).tril(-1)
    right = torch.cat((strength * value, strength * fade * key), -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    written, taken = torch.split(solved, [value.shape[-1], key.shape[-1]], -1)
    ahead = (total[..., -1:] - total).exp()[..., None]  # from a token to the chunk's end
    return _Chunks(written, taken, query * fade, (query @ key.mT) * between, fade[..., -1:, :], key * ahead)


def _gather(numbers: Tensor, runs: Runs) -> Tensor:
    """[N, C, ...] of [T, ...]; zeros where a chunk has no token, which change no state."""
    empty = numbers.new_zeros(runs.num_chunks * CHUNK, *numbers.shape[1:])
    return empty.index_copy(0, runs.places, numbers).view(runs.num_chunks, CHUNK, *numbers.shape[1:])
