"""Experts of a layer as a few products over all of them, on GPUs; weight gradients go straight to the buffers.

Of the forward pass only what comes in, the router's probabilities and gate and up are kept: the activation is computed
again, and neither the tokens of all experts nor what comes out of an expert is ever kept. Biases, where experts have
some, are added by a product with the experts' weights of each row, so that autograd has their gradients.
Legend: T tokens, k experts of each, S = T k slots sorted by expert, H hidden, F width of an expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.megatron.layers.expert_places import ExpertTensors, Slots, Tiles
from core.megatron.layers.fused import load

grouped, expert_rows = load("grouped"), load("expert_rows")


def can_group(tensor: Tensor) -> bool:
    """Whether there are kernels for it."""
    return grouped is not None and expert_rows is not None and tensor.is_cuda


@dataclass(frozen=True)
class Projection:
    """One projection of all experts of a layer: its weights, and the buffers of their gradients."""

    parameters: Sequence[Any]
    _weights: ExpertTensors = field(default_factory=ExpertTensors)
    _gradients: ExpertTensors = field(default_factory=ExpertTensors)

    @property
    def weights(self) -> ExpertTensors:
        """[out, in] of each."""
        return self._weights.at(self.parameters)

    @property
    def trained(self) -> bool:
        """Whether they have gradients."""
        return bool(self.parameters[0].requires_grad)

    @property
    def gradients(self) -> ExpertTensors:
        """[out, in] float32 of each."""
        return self._gradients.at([parameter.main_grad for parameter in self.parameters])


@dataclass(frozen=True)
class Products:
    """The two projections of a layer's experts."""

    first: Projection  # [2 F, H]: gate, up
    second: Projection  # [H, F]
    first_biases: Sequence[Tensor] = ()  # [2 F] of each
    second_biases: Sequence[Tensor] = ()  # [H] of each
    limit: float = 0.0  # of the activation; 0: none

    def __call__(self, hidden: Tensor, probabilities: Tensor, slots: Slots) -> Tensor:
        """[T, H], of [T, H] tokens and [T, k] probabilities of their experts; without `slots.place` [S, H] and [S]."""
        first = torch.stack(list(self.first_biases)) if self.first_biases else None
        result: Tensor = _Experts.apply(hidden, probabilities, first, slots, self)  # type: ignore[no-untyped-call]
        if self.second_biases:
            result = result + slots.spread(probabilities) @ torch.stack(list(self.second_biases))
        return result


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, probabilities: Tensor, biases: Tensor | None, slots: Slots, products: Products
    ) -> Tensor:
        assert grouped is not None
        assert expert_rows is not None
        hidden, number = hidden.contiguous(), probabilities.numel()
        weight = _by_slot(probabilities, slots)
        how = grouped.PRODUCT[hidden.dtype]
        tiles = Tiles.of(slots.starts, number, how.rows)
        both = grouped.product(hidden, slots.token, products.first.weights, tiles, how)
        if biases is not None:
            both.addmm_(slots.of_experts(both.dtype, number), biases)
        gated = expert_rows.gated(both, weight, products.limit)
        out: Tensor = grouped.product(gated, None, products.second.weights, tiles, how)
        ctx.save_for_backward(hidden, weight, both)
        ctx.slots, ctx.products, ctx.like = slots, products, probabilities.shape
        ctx.biased = biases is not None
        if slots.place is not None:
            out = expert_rows.sum_of_slots(out, slots.place)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        assert grouped is not None
        assert expert_rows is not None
        hidden, weight, both = ctx.saved_tensors
        slots, products, incoming = ctx.slots, ctx.products, gradients[0].contiguous()
        how, sums = grouped.PRODUCT[hidden.dtype], grouped.GRADIENT[hidden.dtype]
        tiles = Tiles.of(slots.starts, weight.numel(), how.rows)
        for_gated = grouped.product(incoming, slots.token, products.second.weights, tiles, how, transposed=True)
        for_both, for_weight, gated = expert_rows.gated_backward(both, weight, for_gated, products.limit)
        del for_gated
        if products.second.trained:
            second = products.second.gradients
            grouped.add_weight_gradients(incoming, slots.token, gated, None, slots.starts, second, sums)
        del gated
        if products.first.trained:
            first = products.first.gradients
            grouped.add_weight_gradients(for_both, None, hidden, slots.token, slots.starts, first, sums)
        for_biases = slots.of_experts(for_both.dtype, len(for_both)).t() @ for_both if ctx.biased else None
        back = grouped.product(for_both, None, products.first.weights, tiles, how, transposed=True)
        if slots.place is None:
            return back, for_weight.to(weight.dtype).view(ctx.like), for_biases, None, None
        for_probabilities = for_weight[slots.place.flatten().long()].to(weight.dtype).view(ctx.like)
        return expert_rows.sum_of_slots(back, slots.place), for_probabilities, for_biases, None, None


def _by_slot(probabilities: Tensor, slots: Slots) -> Tensor:
    """[S] of [T, k]."""
    if slots.place is None:
        return probabilities.contiguous()
    by_slot = torch.empty_like(probabilities).flatten()
    by_slot[slots.place.flatten().long()] = probabilities.flatten()
    return by_slot
