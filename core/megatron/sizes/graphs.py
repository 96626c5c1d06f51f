"""Sizes of rows that are CUDA graphs, and what memory the graphs keep. For the planner too, hence without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import modelcfg
from core.megatron.sizes.activations import Pass, update_bytes
from modelcfg import ModelShape

# While the host starts the kernels of one layer, forward and backward (3 ms), an H100 computes about as many operations
HOST_BOUND_FLOPS = 1e12
LEAST_TOKENS, MOST_TOKENS = 256, 4096
KEYS_PER_TOKEN = (2, 8)  # where prompts are shared, at most: long responses, short responses
# Tokens of a segment with its prefix, at most -> tokens of a segment on average, at least. Attention starts blocks for
# segments, empty ones too, as if each were the longest: 512 of 4,096 tokens took four times as long as all the rest.
SEGMENTS = {128: 8, 1024: 32, MOST_TOKENS: 128}


class Graphs(NamedTuple):
    """The largest number of tokens of a row that is a graph, and whether all rows of the run are graphs."""

    most_tokens: int
    all_rows: bool


class FixedSize(NamedTuple):
    """A size of rows. `tokens`: also the number of targets; `keys`: 0 where no prompt is shared, keys are the tokens
    then; `longest`: tokens of a segment and its prefix."""

    tokens: int
    keys: int
    longest: int

    @property
    def segments(self) -> int:
        """Number of segments: those of the row, and those of the padding."""
        return self.tokens // SEGMENTS[_bound(self.longest)] + self.tokens // self.longest


def size_for(tokens: int, targets: int, key_counts: Sequence[int], shared: bool, most_tokens: int) -> FixedSize | None:
    """The smallest size that holds a row; None: none does. They are few, so that most rows find their graph there.

    Args:
        tokens, targets: of the row; many short responses have more targets than tokens.
        key_counts: keys of each segment.
        shared: whether some segment has a prefix.
    """
    longest = max(key_counts)
    if longest > most_tokens:
        return None
    padded = padded_tokens(max(tokens, targets), len(key_counts), longest)
    keys = (share * padded for share in KEYS_PER_TOKEN if sum(key_counts) + padded - tokens <= share * padded)
    held = next(keys, None) if shared else 0
    return None if padded > most_tokens or held is None else FixedSize(padded, held, min(padded, _bound(longest)))


def expected_sizes(most_tokens: int, sample_tokens: int, shared: bool) -> list[FixedSize]:
    """Sizes of rows whose longest sample has this number of tokens."""
    tokens = [LEAST_TOKENS << i for i in range((most_tokens // LEAST_TOKENS).bit_length())]
    keys, longest = KEYS_PER_TOKEN if shared else (0,), _bound(min(sample_tokens, MOST_TOKENS))
    return [FixedSize(number, share * number, min(number, longest)) for number in tokens for share in keys]


def padded_tokens(tokens: int, segments: int, longest: int) -> int:
    """Padded length of a row with this number of tokens or of targets, whichever is larger."""
    return 1 << (max(LEAST_TOKENS, tokens, segments * SEGMENTS[_bound(longest)]) - 1).bit_length()


def _bound(longest: int) -> int:
    return next(bound for bound in SEGMENTS if longest <= bound)


def most_tokens(shape: ModelShape) -> int:
    """Rows up to this size, a power of two, keep the host busier than the GPU, even when padded."""
    bound = HOST_BOUND_FLOPS * shape.num_layers / (6 * modelcfg.num_parameters(shape))
    return min(MOST_TOKENS, 1 << (int(bound).bit_length() - 1))


def graph_bytes(shape: ModelShape, how: Pass, tokens: int) -> int:
    """Kept for all graphs together: what the largest row leaves for its backward pass, keys that are there several
    times, and one gradient of every parameter.

    Args:
        tokens: of the largest row, which has the same number of targets.
    """
    keys = 2 * how.num_layers * max(KEYS_PER_TOKEN) * tokens * shape.key_value_size * how.element_bytes
    gradients = modelcfg.num_parameters(shape) * how.element_bytes
    return sum(update_bytes(shape, how, tokens, tokens).values()) + keys + gradients
