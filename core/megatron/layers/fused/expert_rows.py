"""Experts' gated activation weighed by the router's probability, and the sum over a token's experts.

With a limit the activation is gate * sigmoid(1.702 gate) * (up + 1), of a gate that is at most the limit, and an up
that is at most the limit, of either sign (gpt-oss, arXiv:2508.10925).
Source: SwiGLU, arXiv:2002.05202. Legend: S slots, F width of an expert, T tokens, k experts of a token, H hidden.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.megatron.layers.fused.swiglu import BLOCK
from modelcfg.shape import STEEPNESS

STEEP = tl.constexpr(STEEPNESS)


@triton.jit
def _clamped(gate, up, LIMIT: tl.constexpr):
    return tl.minimum(gate, LIMIT), tl.minimum(tl.maximum(up, -LIMIT), LIMIT)


@triton.jit
def _activated(gate, up, LIMIT: tl.constexpr):
    if LIMIT > 0:
        gate, up = _clamped(gate, up, LIMIT)
        result = gate * tl.sigmoid(gate * STEEP) * (up + 1)
    else:
        result = gate * tl.sigmoid(gate) * up
    return result


@triton.jit
def _slopes(gate, up, LIMIT: tl.constexpr):
    if LIMIT > 0:
        inside_gate, inside_up = gate <= LIMIT, (up >= -LIMIT) & (up <= LIMIT)
        gate, up = _clamped(gate, up, LIMIT)
        share = tl.sigmoid(gate * STEEP)
        for_gate = tl.where(inside_gate, (up + 1) * share * (1 + gate * STEEP * (1 - share)), 0.0)
        for_up = tl.where(inside_up, gate * share, 0.0)
    else:
        share = tl.sigmoid(gate)
        for_gate = up * share * (1 + gate * (1 - share))
        for_up = gate * share
    return for_gate, for_up


@triton.jit
def _forward(both, weight, out, width, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    slot = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < width
    gate = tl.load(both + slot * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + slot * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
    result = _activated(gate, up, LIMIT) * tl.load(weight + slot).to(tl.float32)
    tl.store(out + slot * width + lanes, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(both, weight, incoming, for_both, result, for_weight, width, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    slot = tl.program_id(0).to(tl.int64)
    weighed_by = tl.load(weight + slot).to(tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, width, BLOCK):
        lanes = begin + tl.arange(0, BLOCK)
        inside = lanes < width
        gate = tl.load(both + slot * 2 * width + lanes, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(both + slot * 2 * width + width + lanes, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(incoming + slot * width + lanes, mask=inside, other=0.0).to(tl.float32)
        plain = _activated(gate, up, LIMIT)
        of_gate, of_up = _slopes(gate, up, LIMIT)
        total += g * plain
        g *= weighed_by
        for_gate, for_up = g * of_gate, g * of_up
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


def gated(both: Tensor, weight: Tensor, limit: float = 0.0) -> Tensor:
    """[S, F]: silu(gate) * up * weight, of [S, 2 F] and [S], or clamped at a limit; computed in float32."""
    slots, width = both.shape[0], both.shape[1] // 2
    out = both.new_empty(slots, width)
    if slots:
        _forward[(slots, triton.cdiv(width, BLOCK))](both, weight, out, width, LIMIT=limit, BLOCK=BLOCK)
    return out


def gated_backward(both: Tensor, weight: Tensor, incoming: Tensor, limit: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of [S, 2 F] and of [S] (float32) of `gated`, and once more its result [S, F]."""
    slots, width = incoming.shape
    for_both, result = torch.empty_like(both), torch.empty_like(incoming)
    for_weight = both.new_empty(slots, dtype=torch.float32)
    if slots:
        how = {"LIMIT": limit, "BLOCK": BLOCK}
        _backward[(slots,)](both, weight, incoming, for_both, result, for_weight, width, **how)
    return for_both, for_weight, result


def sum_of_slots(slots: Tensor, place: Tensor) -> Tensor:
    """[T, H]: the sum of a token's slots, of [S, H] and [T, k] places; summed in float32."""
    tokens, chosen = place.shape
    width = slots.shape[1]
    out = slots.new_empty(tokens, width)
    if tokens:
        _sum[(tokens, triton.cdiv(width, BLOCK))](slots, place, out, width, CHOSEN=chosen, BLOCK=BLOCK)
    return out
