"""The arithmetic of a step's samples, and what this rank's GPU can do of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.megatron.sizes.flops import peak_flops
from core.samples import Sample


class Work(NamedTuple):
    """What an update computes of a step's samples, if all of them teach something."""

    tokens: float  # that pass the layers
    targets: float  # that are predicted
    pairs: float  # of tokens that attend to each other


def work_of(samples: Sequence[Sample], *, share_prompts: bool) -> Work:
    """The work of these samples; prompts count once per group where rows share them."""
    prompts: dict[int, int] = {}
    tokens = pairs = 0.0
    for place, sample in enumerate(samples):
        prompt, response = len(sample.prompt.tokens), len(sample.response_tokens)
        prompts[sample.group if share_prompts else place] = prompt
        tokens += response
        pairs += response * (prompt + response / 2)
    targets = tokens
    return Work(tokens + sum(prompts.values()), targets, pairs + sum(prompt**2 / 2 for prompt in prompts.values()))


def gpu_peak_flops(device: str) -> float | None:
    """Operations per second of this process's GPU at most; None: there is none, or it is not known."""
    if device != "cuda":
        return None
    import torch

    return peak_flops(torch.cuda.get_device_name())
