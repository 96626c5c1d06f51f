"""silu(gate) * up, with gate and up side by side in one tensor; backward needs that tensor alone.

Source: SwiGLU, arXiv:2002.05202. Legend: N rows, F columns of the result.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _forward(both, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < width
    gate = tl.load(both + row * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + lanes, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(both, incoming, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < width
    gate = tl.load(both + row * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(incoming + row * width + lanes, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    for_gate = g * up * share * (1 + gate * (1 - share))
    for_up = g * gate * share
    tl.store(out + row * 2 * width + lanes, for_gate.to(out.dtype.element_ty), mask=inside)
    tl.store(out + row * 2 * width + width + lanes, for_up.to(out.dtype.element_ty), mask=inside)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        both = both.contiguous()
        width = both.shape[-1] // 2
        out = both.new_empty(*both.shape[:-1], width)
        _forward[(out.numel() // width, triton.cdiv(width, BLOCK))](both, out, width, BLOCK=BLOCK)
        ctx.save_for_backward(both)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        width = both.shape[-1] // 2
        out = torch.empty_like(both)
        grid = (both.numel() // (2 * width), triton.cdiv(width, BLOCK))
        _backward[grid](both, gradients[0].contiguous(), out, width, BLOCK=BLOCK)
        return out


def swiglu(both: Tensor) -> Tensor:
    """[..., 2 F] to [..., F]; computed in float32, returned in the tensor's dtype."""
    result: Tensor = _SwiGlu.apply(both)
    return result
