"""Products of rows, sorted by expert, with the weights of their experts: all experts in one launch.

The experts' weights and gradients stay where they are: each is a tensor of its own, and a table has its distance from
the first one. A program takes a tile of one expert. Nothing is read on the host.
Legend: S slots (a token at one of its experts), E experts, M tiles of rows, N columns of the result, K summed over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.megatron.layers.expert_places import ExpertTensors, Tiles


@dataclass(frozen=True)
class Tiling:
    """Sizes of what a program computes, and how; found by `bench/moe.py` on an H200."""

    rows: int
    columns: int
    summed: int
    warps: int = 8
    stages: int = 3


PRODUCT = {
    torch.bfloat16: Tiling(rows=128, columns=256, summed=64, stages=4),
    torch.float32: Tiling(rows=64, columns=64, summed=32, warps=4),
}
GRADIENT = {
    torch.bfloat16: Tiling(rows=128, columns=128, summed=64, warps=4),
    torch.float32: Tiling(rows=64, columns=64, summed=32, warps=4),
}


@triton.jit
def _product(
    rows,
    index,
    first,
    distances,
    out,
    tile_expert,
    tile_row,
    starts,
    num_columns,
    num_summed,
    column_stride,
    summed_stride,
    GATHER: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUMMED: tl.constexpr,
):
    column_tiles = tl.cdiv(num_columns, COLUMNS)
    tile = tl.program_id(0) // column_tiles
    expert = tl.load(tile_expert + tile)
    if expert < 0:
        return
    slots = tl.load(tile_row + tile) + tl.arange(0, ROWS)
    inside = slots < tl.load(starts + expert + 1)
    taken = tl.load(index + slots, mask=inside, other=0) if GATHER else slots
    columns = (tl.program_id(0) % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    summed = tl.arange(0, SUMMED)
    weight = first + tl.multiple_of(tl.load(distances + expert), 8)
    from_rows = rows + taken.to(tl.int64)[:, None] * num_summed + summed[None, :]
    from_weight = weight + columns[None, :] * column_stride + summed[:, None] * summed_stride
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for at in range(0, num_summed, SUMMED):
        if EVEN:
            a = tl.load(from_rows, mask=inside[:, None], other=0.0)
            b = tl.load(from_weight)
        else:
            left = summed < num_summed - at
            a = tl.load(from_rows, mask=inside[:, None] & left[None, :], other=0.0)
            b = tl.load(from_weight, mask=left[:, None] & (columns < num_columns)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        from_rows += SUMMED
        from_weight += SUMMED * summed_stride
    to = out + slots.to(tl.int64)[:, None] * num_columns + columns[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=inside[:, None] & (columns < num_columns)[None, :])


@triton.jit
def _weight_gradient(
    left,
    left_index,
    right,
    right_index,
    starts,
    first,
    distances,
    num_rows,
    num_columns,
    GATHER_LEFT: tl.constexpr,
    GATHER_RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUMMED: tl.constexpr,
):
    column_tiles = tl.cdiv(num_columns, COLUMNS)
    tiles = tl.cdiv(num_rows, ROWS) * column_tiles
    expert = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    begin, end = tl.load(starts + expert), tl.load(starts + expert + 1)
    if begin == end:
        return
    rows = (tile // column_tiles) * ROWS + tl.arange(0, ROWS)
    columns = (tile % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for at in range(begin, end, SUMMED):
        slots = at + tl.arange(0, SUMMED)
        inside = slots < end
        from_left = tl.load(left_index + slots, mask=inside, other=0) if GATHER_LEFT else slots
        from_right = tl.load(right_index + slots, mask=inside, other=0) if GATHER_RIGHT else slots
        a = tl.load(
            left + from_left.to(tl.int64)[:, None] * num_rows + rows[None, :],
            mask=inside[:, None] & (rows < num_rows)[None, :],
            other=0.0,
        )
        b = tl.load(
            right + from_right.to(tl.int64)[:, None] * num_columns + columns[None, :],
            mask=inside[:, None] & (columns < num_columns)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    gradient = first + tl.multiple_of(tl.load(distances + expert), 4)
    to = gradient + rows[:, None].to(tl.int64) * num_columns + columns[None, :]
    within = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    tl.store(to, tl.load(to, mask=within, other=0.0) + total, mask=within)


def product(
    rows: Tensor,
    index: Tensor | None,
    weights: ExpertTensors,
    tiles: Tiles,
    how: Tiling,
    transposed: bool = False,
) -> Tensor:
    """[S, N]: each slot's row times its expert's weight.

    Args:
        rows: [., K]. index: [S] which of them is a slot's; None: the rows are those of the slots.
        weights: of shape [N, K]; `transposed`: of [K, N].
        tiles: the rows' tiles of `how.rows` slots.
    """
    whole = weights.shape
    num_columns, num_summed = whole[::-1] if transposed else whole
    out = rows.new_empty(tiles.num_slots, num_columns)
    column_stride, summed_stride = (1, num_columns) if transposed else (num_summed, 1)
    _product[(tiles.number * triton.cdiv(num_columns, how.columns),)](
        rows,
        rows if index is None else index,
        weights.first,
        weights.distances,
        out,
        tiles.expert,
        tiles.row,
        tiles.starts,
        num_columns,
        num_summed,
        column_stride,
        summed_stride,
        GATHER=index is not None,
        EVEN=num_summed % how.summed == 0 and num_columns % how.columns == 0,
        PRECISION=_precision(rows),
        ROWS=how.rows,
        COLUMNS=how.columns,
        SUMMED=how.summed,
        num_warps=how.warps,
        num_stages=how.stages,
    )
    return out


def add_weight_gradients(
    left: Tensor,
    left_index: Tensor | None,
    right: Tensor,
    right_index: Tensor | None,
    starts: Tensor,
    gradients: ExpertTensors,
    how: Tiling,
) -> None:
    """gradients[e] += left^T right over the slots of expert e, summed in float32.

    Args:
        left: [., N], right: [., K]; with an index [S] a slot has that row, without one its own.
        starts: [E + 1] first slot of each expert, and their number.
        gradients: of shape [N, K] float32.
    """
    num_rows, num_columns = gradients.shape
    tiles = triton.cdiv(num_rows, how.rows) * triton.cdiv(num_columns, how.columns)
    _weight_gradient[((starts.numel() - 1) * tiles,)](
        left,
        left if left_index is None else left_index,
        right,
        right if right_index is None else right_index,
        starts,
        gradients.first,
        gradients.distances,
        num_rows,
        num_columns,
        GATHER_LEFT=left_index is not None,
        GATHER_RIGHT=right_index is not None,
        PRECISION=_precision(left),
        ROWS=how.rows,
        COLUMNS=how.columns,
        SUMMED=how.summed,
        num_warps=how.warps,
        num_stages=how.stages,
    )


def _precision(tensor: Tensor) -> str:
    return "ieee" if tensor.dtype == torch.float32 else "tf32"
