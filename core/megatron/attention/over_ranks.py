"""Keys and values of a row whose tokens lie on several context-parallel ranks, and what comes of its targets.

Each rank attends with its own queries to the keys of all ranks, which are gathered layer by layer; their gradients are
added up where they belong. Against passing keys round in a ring this takes memory for the keys of the whole row, of one
layer at a time where layers are recomputed, and any plan of attention does.
Legend: C ranks, P tokens of a rank, g key-value heads, d width of a key, v of a value; R targets of a row, r of these
on a rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor


def gathered(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """[C × P, g, d] and [C × P, g, v] of [P, g, d] and [P, g, v]; their gradients are summed over the ranks.

    Collective: the context-parallel ranks, forward and backward.
    """
    widths = [key.shape[-1], value.shape[-1]]
    group = parallel_state.get_context_parallel_group()
    both = gather_from_sequence_parallel_region(torch.cat((key, value), -1), group=group)
    keys, values = torch.split(both, widths, -1)
    return keys, values


def of_row(values: Tensor, own_targets: Tensor, num_targets: int) -> Tensor:
    """[R] numbers of [r] of each rank. All ranks then compute the same loss, and each has the gradient of its own.

    Args:
        own_targets: [r] which of the R they are.
    Collective: the context-parallel ranks, forward only.
    """
    result: Tensor = _OfRow.apply(values, own_targets, num_targets)  # type: ignore[no-untyped-call]
    return result


class _OfRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, own_targets: Tensor, num_targets: int) -> Tensor:
        ctx.own_targets = own_targets
        whole = values.new_zeros(num_targets)
        if num_targets:
            whole[own_targets] = values
            dist.all_reduce(whole, group=parallel_state.get_context_parallel_group())
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own_targets], None, None
