"""Weights of tokens: a weighted sum over all tokens of a global batch is the mean that the run file asks for.

Legend: B samples of the global batch that an optimiser step learns from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def token_weights(
    loss_masks: Sequence[Sequence[int]],
    aggregation: str,
    groups: Sequence[int] | None = None,
    constant_length: int = 0,
) -> list[NDArray[np.float32]]:
    """Weights that make a sum over all tokens of a global batch the wanted mean.

    Args:
        loss_masks: one list of 0/1 per sample of the global batch.
        aggregation: token_mean (every token counts the same), sample_mean (every sample), prompt_mean (every prompt,
            its tokens the same), or constant (every sample, each of its tokens 1 / constant_length: Dr. GRPO,
            arXiv:2503.20783).
        groups: prompt_mean: the prompt of each sample.
        constant_length: constant: tokens.
    Returns:
        arrays as long as the masks, summing to 1, with constant to less; all 0 where no token is unmasked.
    """
    masks = [np.asarray(mask, np.float32) for mask in loss_masks]
    lengths = [int(mask.sum()) for mask in masks]
    denominators = _denominators(lengths, aggregation, groups or range(len(masks)), constant_length)
    return [mask / np.float32(max(1, denominator)) for mask, denominator in zip(masks, denominators, strict=True)]


def _denominators(lengths: list[int], aggregation: str, groups: Sequence[int], constant_length: int) -> list[int]:
    """[B] numbers that the ones of each sample's mask are divided by."""
    num_samples = sum(length > 0 for length in lengths)
    if aggregation == "token_mean":
        return [sum(lengths)] * len(lengths)
    if aggregation == "sample_mean":
        return [num_samples * length for length in lengths]
    if aggregation == "constant":
        return [num_samples * constant_length] * len(lengths)
    if aggregation == "prompt_mean":
        tokens = Counter[int]()
        for group, length in zip(groups, lengths, strict=True):
            tokens[group] += length
        num_prompts = sum(count > 0 for count in tokens.values())
        return [num_prompts * tokens[group] for group in groups]
    raise ValueError(f"loss aggregation {aggregation!r}: wanted token_mean, sample_mean, prompt_mean or constant")
