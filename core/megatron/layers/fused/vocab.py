"""Softmax statistics and their gradient over rows of logits, one pass over memory each.

Legend: R rows, P columns of this rank, of which `num_valid` count.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def _statistics(
    logits, column, is_local, out, stride, num_rows, num_valid, inverse_temperature, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * stride
    lanes = tl.arange(0, BLOCK)
    peak = tl.full([BLOCK], -1e38, tl.float32)  # each lane keeps its own running sums; they are joined at the end
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for first in range(0, num_valid, BLOCK):
        inside = first + lanes < num_valid
        z = tl.load(base + first + lanes, mask=inside, other=0.0).to(tl.float32) * inverse_temperature
        z = tl.where(inside, z, -1e38)
        higher = tl.maximum(peak, z)
        shift, delta = peak - higher, z - higher
        old, new = tl.exp(shift), tl.exp(delta)
        weighted = old * (weighted + total * shift) + tl.where(inside, new * delta, 0.0)
        total = old * total + tl.where(inside, new, 0.0)
        peak = higher
    top = tl.max(peak, 0)
    shift = tl.maximum(peak - top, -1e30)  # a lane that saw nothing: its sums are 0
    factor = tl.exp(shift)
    weighted = tl.where(total > 0, factor * (weighted + total * shift), 0.0)
    local = tl.load(is_local + row) != 0
    index = tl.load(column + row)
    chosen = tl.load(base + index, mask=local, other=0.0).to(tl.float32) * inverse_temperature
    tl.store(out + row, top)
    tl.store(out + num_rows + row, tl.sum(factor * total, 0))
    tl.store(out + 2 * num_rows + row, tl.sum(weighted, 0))
    tl.store(out + 3 * num_rows + row, chosen)


@triton.jit
def _gradient(
    logits, column, is_local, log_normaliser, entropy, for_log_prob, for_entropy,
    stride, num_columns, num_valid, inverse_temperature, HAS_ENTROPY: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < num_valid
    place = logits + row * stride + lanes
    z = tl.load(place, mask=inside, other=0.0).to(tl.float32) * inverse_temperature
    log_p = z - tl.load(log_normaliser + row)
    p = tl.exp(log_p)
    g = tl.load(for_log_prob + row)
    gradient = -p * g
    if HAS_ENTROPY:
        gradient -= p * (log_p + tl.load(entropy + row)) * tl.load(for_entropy + row)
    local = tl.load(is_local + row) != 0
    index = tl.load(column + row)
    gradient += tl.where((lanes == index) & local, g, 0.0)
    gradient = tl.where(inside, gradient * inverse_temperature, 0.0)
    tl.store(place, gradient.to(logits.dtype.element_ty), mask=lanes < num_columns)


def statistics(logits: Tensor, column: Tensor, is_local: Tensor, num_valid: int, temperature: float) -> Tensor:
    """[4, R] float32: peak, sum of e = exp(z - peak), sum of e (z - peak), the target's z; z = logits / temperature.

    Args:
        logits: [R, P], rows contiguous; num_valid >= 1.
        column: [R] int64 target column, 0 where the target is not local.
        is_local: [R] bool.
    """
    rows = logits.shape[0]
    out = torch.empty(4, rows, dtype=torch.float32, device=logits.device)
    if rows:
        marks = is_local.to(torch.int8)
        _statistics[(rows,)](
            logits, column, marks, out, logits.stride(0), rows, num_valid, 1 / temperature, BLOCK=BLOCK, num_warps=8
        )  # fmt: skip
    return out


def gradient_in_place(
    logits: Tensor,
    column: Tensor,
    is_local: Tensor,
    num_valid: int,
    temperature: float,
    log_normaliser: Tensor,
    entropy: Tensor,
    for_log_prob: Tensor,
    for_entropy: Tensor | None,
) -> None:
    """Write d loss / d logits over the logits.

    Args:
        log_normaliser, entropy, for_log_prob, for_entropy: [R] float32, the last two the incoming gradients.
    """
    rows, columns = logits.shape
    if rows:
        grid = (rows, triton.cdiv(columns, BLOCK))
        _gradient[grid](
            logits, column, is_local.to(torch.int8), log_normaliser.contiguous(), entropy.contiguous(),
            for_log_prob.contiguous(), (for_log_prob if for_entropy is None else for_entropy).contiguous(),
            logits.stride(0), columns, num_valid, 1 / temperature,
            HAS_ENTROPY=for_entropy is not None, BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
