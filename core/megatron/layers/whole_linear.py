"""A linear layer that knows of no other tensor-parallel ranks."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.layers import (
    linear_with_frozen_weight,
    linear_with_grad_accumulation_and_async_allreduce,
)
from torch import Tensor


class WholeLinear(torch.nn.Module):
    """A product without communication: its weight is the same on all tensor-parallel ranks, unless who makes it with a
    part of one says so. No bias.
    """

    def __init__(self, config: Any, inputs: int, outputs: int) -> None:
        super().__init__()
        device = torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.empty(outputs, inputs, dtype=config.params_dtype, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        linear = linear_with_grad_accumulation_and_async_allreduce
        if not self.weight.requires_grad:
            linear = linear_with_frozen_weight
        product: Tensor = linear(
            hidden,
            self.weight,
            None,
            gradient_accumulation_fusion=True,
            allreduce_dgrad=False,
            sequence_parallel=False,
            tp_group=None,
        )
        return product
