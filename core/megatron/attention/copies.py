"""Rows of tokens gathered in another order, some of them more than once, and the way back of their gradients.

Nothing that is gathered is kept for the backward pass, only where it came from.
Legend: T row tokens, C and W rows that are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.rows.to_device import to_device


@dataclass(frozen=True)
class Copies:
    """Rows gathered, each at least once, and how to bring what comes back for them together again."""

    rows: Tensor  # [C] int64 row positions
    places: Tensor  # int64: places in `rows`, those of one row position together, in order of position; no padding
    first: Tensor  # [T + 1] int64: where in `places` those of each row position begin, and where all end

    @classmethod
    def of(cls, rows: Tensor, device: str, padding: Tensor | None = None, *, of_rows: int = 0) -> Copies:
        """Prepare the copies of these rows on the device.

        Args:
            rows: [C] on the CPU. padding: [C] bool, those for which nothing comes back.
            of_rows: T, where the last ones may be in no copy.
        """
        counted = rows if padding is None else rows[~padding]
        counts = counted.bincount(minlength=of_rows)
        sorted_by = rows if padding is None else torch.where(padding, len(counts), rows)
        places = to_device(sorted_by, device).argsort(stable=True)[: len(counted)]
        return cls(to_device(rows, device), places, to_device(functional.pad(counts.cumsum(0), (1, 0)), device))


def copied(rows: Tensor, copies: Copies) -> Tensor:
    """[T, ...] to [C, ...]. The copies' gradients are added in float32 and always alike; index_select's are not."""
    return _gather(rows, copies.rows, partial(_together, copies))


def to_sequences(rows: Tensor, index: Tensor, own: Tensor) -> Tensor:
    """[T, ...] to [W, ...] by [W] row positions; each row's gradient comes from its own place alone.

    Args:
        own: [T] where each row is among the W.
    """
    return _gather(rows, index, lambda gradients: gradients.index_select(0, own))


def to_row(rows: Tensor, own: Tensor) -> Tensor:
    """[W, ...] to [T, ...]. No place is taken twice, so gradients are copied where index_select's are added up."""
    shape = rows.shape  # and not `rows`, which would be kept until then
    return _gather(rows, own, lambda gradients: gradients.new_zeros(shape).index_copy_(0, own, gradients))


def _together(copies: Copies, gradients: Tensor) -> Tensor:
    total = functional.embedding_bag(copies.places, gradients.flatten(1), copies.first, mode="sum")
    return total[:-1].view(-1, *gradients.shape[1:])  # the last bag is what lies behind all that count


def _gather(rows: Tensor, index: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
    result: Tensor = _Gather.apply(rows, index, back)  # type: ignore[no-untyped-call]
    return result


class _Gather(torch.autograd.Function):
    """The rows of an index; `back` makes their gradients of those of the result."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0]), None, None
