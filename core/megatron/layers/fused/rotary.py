"""Rotation of the two halves of each head by the angles of its position; backward turns back.

Source: RoPE, arXiv:2104.09864, in the halves-apart order of HuggingFace's models.
Legend: T tokens, h heads, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _turn(
    heads, cos, sin, out, stride_token, stride_head, num_heads, half, direction,
    BLOCK: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)[None, :]
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    inside = (lanes < half) & (head < num_heads)
    c = tl.load(cos + token * half + lanes, mask=lanes < half, other=0.0)
    s = tl.load(sin + token * half + lanes, mask=lanes < half, other=0.0) * direction
    place = heads + token * stride_token + head * stride_head + lanes
    left = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(place + half, mask=inside, other=0.0).to(tl.float32)
    target = out + (token * num_heads + head) * 2 * half + lanes
    tl.store(target, (left * c - right * s).to(out.dtype.element_ty), mask=inside)
    tl.store(target + half, (right * c + left * s).to(out.dtype.element_ty), mask=inside)


def _launch(heads: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    if heads.stride(2) != 1:
        heads = heads.contiguous()
    tokens, num_heads, size = heads.shape
    out = torch.empty(tokens, num_heads, size, dtype=heads.dtype, device=heads.device)
    at_once = min(16, triton.next_power_of_2(num_heads))
    if tokens:
        _turn[(tokens, triton.cdiv(num_heads, at_once))](
            heads, cos, sin, out, heads.stride(0), heads.stride(1), num_heads, size // 2, direction,
            BLOCK=triton.next_power_of_2(size // 2), HEADS=at_once,
        )  # fmt: skip
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _launch(heads, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _launch(gradients[0], cos, sin, -1.0), None, None


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[T, h, d] turned by [T, d / 2] float32 cosines and sines; contiguous, in the dtype of `heads`."""
    result: Tensor = _Rotate.apply(heads, cos, sin)
    return result
