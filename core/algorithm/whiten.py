"""Advantages of a step with mean 0 and standard deviation 1 over the tokens that count.

Source: REINFORCE++, arXiv:2501.03262, section 3 (global batch normalisation).
Legend: B samples of a step, T response tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LEAST_VARIANCE = 1e-8  # keeps a step of equal advantages at 0 instead of 0/0


def whiten(advantages: Sequence[Tensor], loss_mask: Sequence[Tensor], valid: Tensor) -> list[Tensor]:
    """(A - mean) / std over the unmasked tokens of the step's valid samples; std has n in its denominator.

    Args:
        advantages: B tensors [T].
        loss_mask: B tensors [T] of 0 and 1.
        valid: [B] bool: samples that take part.
    Returns:
        B tensors [T] float32; what a masked token gets is not read by any loss.
    Collective: none: every rank has the whole step.
    """
    lengths = [len(one) for one in advantages]
    flat = torch.cat([torch.zeros(0), *advantages]).double()
    part = torch.cat([torch.zeros(0), *loss_mask]).double() * _spread(valid.double(), lengths)
    flat = torch.where(part > 0, flat, 0.0)
    count = part.sum().clamp(min=1)
    mean = (flat * part).sum() / count
    variance = ((flat - mean) ** 2 * part).sum() / count
    whitened = (flat - mean) / variance.clamp(min=LEAST_VARIANCE).sqrt()
    return [one.float() for one in torch.split(torch.where(part > 0, whitened, 0.0), lengths)]


def _spread(values: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.repeat(values.numpy(), lengths))
