"""Up to which size rows are CUDA graphs, and what memory the graphs keep: for the planner, hence without torch."""

from __future__ import annotations

import modelcfg
from core.megatron.activation_sizes import Pass, update_bytes
from modelcfg import ModelShape

# While the host starts the kernels of one layer, forward and backward (3 ms), an H100 computes about as many operations
HOST_BOUND_FLOPS = 1e12
LEAST_TOKENS, MOST_TOKENS = 256, 4096
TOKENS_PER_SEGMENT = 8  # on average, at least
MOST_KEYS_PER_TOKEN = 8


def most_tokens(shape: ModelShape) -> int:
    """Rows up to this size, a power of two, keep the host busier than the GPU, even when padded."""
    bound = HOST_BOUND_FLOPS * shape.num_layers / (6 * modelcfg.num_parameters(shape))
    return min(MOST_TOKENS, 1 << (int(bound).bit_length() - 1))


def padded_tokens(tokens: int, segments: int) -> int:
    """Of a row with so many tokens or targets, whichever are more."""
    return 1 << (max(LEAST_TOKENS, tokens, segments * TOKENS_PER_SEGMENT) - 1).bit_length()


def graph_bytes(shape: ModelShape, how: Pass, tokens: int) -> int:
    """Kept for all graphs together: what the largest row leaves for its backward pass, keys that are there several
    times, and one gradient of every parameter.

    Args:
        tokens: of the largest row, as many targets.
    """
    keys = 2 * how.num_layers * MOST_KEYS_PER_TOKEN * tokens * shape.key_value_size * how.element_bytes
    gradients = modelcfg.num_parameters(shape) * how.element_bytes
    return sum(update_bytes(shape, how, tokens, tokens).values()) + keys + gradients
