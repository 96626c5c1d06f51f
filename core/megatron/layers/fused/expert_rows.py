"""Experts' gated activation weighed by the router's probability, and the sum over a token's experts.

Source: SwiGLU, arXiv:2002.05202. Legend: S slots, F width of an expert, T tokens, k experts of a token, H hidden.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.megatron.layers.fused.swiglu import BLOCK


@triton.jit
def _forward(both, weight, out, width, BLOCK: tl.constexpr):
    slot = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < width
    gate = tl.load(both + slot * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + slot * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up * tl.load(weight + slot).to(tl.float32)
    tl.store(out + slot * width + lanes, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(both, weight, incoming, for_both, result, for_weight, width, BLOCK: tl.constexpr):
    slot = tl.program_id(0).to(tl.int64)
    weighed_by = tl.load(weight + slot).to(tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, width, BLOCK):
        lanes = begin + tl.arange(0, BLOCK)
        inside = lanes < width
        gate = tl.load(both + slot * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(both + slot * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(incoming + slot * width + lanes, mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        plain = gate * share * up
        total += g * plain
        g *= weighed_by
        for_gate = g * up * share * (1 + gate * (1 - share))
        for_up = g * gate * share
        tl.store(for_both + slot * 2 * width + lanes, for_gate.to(for_both.dtype.element_ty), mask=inside)
        tl.store(for_both + slot * 2 * width + width + lanes, for_up.to(for_both.dtype.element_ty), mask=inside)
        tl.store(result + slot * width + lanes, (plain * weighed_by).to(result.dtype.element_ty), mask=inside)
    tl.store(for_weight + slot, tl.sum(total))


@triton.jit
def _sum(slots, place, out, width, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < width
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for choice in tl.static_range(CHOSEN):
        slot = tl.load(place + token * CHOSEN + choice).to(tl.int64)
        total += tl.load(slots + slot * width + lanes, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * width + lanes, total.to(out.dtype.element_ty), mask=inside)


def gated(both: Tensor, weight: Tensor) -> Tensor:
    """[S, F]: silu(gate) * up * weight, of [S, 2 F] and [S]; computed in float32."""
    slots, width = both.shape[0], both.shape[1] // 2
    out = both.new_empty(slots, width)
    if slots:
        _forward[(slots, triton.cdiv(width, BLOCK))](both, weight, out, width, BLOCK=BLOCK)
    return out


def gated_backward(both: Tensor, weight: Tensor, incoming: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of [S, 2 F] and of [S] (float32) of `gated`, and once more its result [S, F]."""
    slots, width = incoming.shape
    for_both, result = torch.empty_like(both), torch.empty_like(incoming)
    for_weight = both.new_empty(slots, dtype=torch.float32)
    if slots:
        _backward[(slots,)](both, weight, incoming, for_both, result, for_weight, width, BLOCK=BLOCK)
    return for_both, for_weight, result


def sum_of_slots(slots: Tensor, place: Tensor) -> Tensor:
    """[T, H]: the sum of a token's slots, of [S, H] and [T, k] places; summed in float32."""
    tokens, chosen = place.shape
    width = slots.shape[1]
    out = slots.new_empty(tokens, width)
    if tokens:
        _sum[(tokens, triton.cdiv(width, BLOCK))](slots, place, out, width, CHOSEN=chosen, BLOCK=BLOCK)
    return out
