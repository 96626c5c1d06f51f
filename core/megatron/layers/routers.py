"""Which experts a token goes to, and what their results weigh: Megatron's gate, and the choice of two kinds of models.

    softmax   the most probable, their probabilities made to sum to 1 (Qwen3, arXiv:2505.09388)
    sigmoid   a score for each expert; those of the best scores with a bias (DeepSeek-V3, arXiv:2412.19437; GLM-4.5)

Differs from Megatron's sigmoid router: groups are ranked by their two best experts, as transformers and SGLang do it,
and the bias stays as it was loaded.
Legend: T tokens, E experts, k experts of each token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from modelcfg import ModelShape, SigmoidRouter

FIXED = ".router.expert_bias"  # the end of the name of each bias
RANKED_BY = 2  # experts of a group
LEAST_SUM = 1e-20

Choice = tuple[Tensor, Tensor]  # [T, k] weights, [T, k] numbers of experts


def router_of(shape: ModelShape) -> Callable[..., TopKRouter]:
    """Class of a layer's router."""
    return Softmax if shape.router is None else partial(Sigmoid, how=shape.router)


class Softmax(TopKRouter):  # type: ignore[misc]
    """Megatron's router, as it is."""

    def choose(self, logits: Tensor) -> Choice:
        """The same choice without Megatron's map of all experts, of [T, E]."""
        scores, chosen = logits.topk(self.config.moe_router_topk, dim=1)
        return scores.softmax(1, dtype=torch.float32).type_as(logits), chosen


class Sigmoid(TopKRouter):  # type: ignore[misc]
    """Megatron's gate in float32, and a bias that is part of the weights but of no gradient."""

    def __init__(self, config: Any, how: SigmoidRouter, **options: Any) -> None:
        super().__init__(config, **options)
        self.how = how
        del self.expert_bias  # Megatron's own would be moved with every step
        zeros = torch.zeros(config.num_moe_experts, dtype=torch.float32, device=torch.cuda.current_device())
        self.register_buffer("expert_bias", zeros)

    def choose(self, logits: Tensor) -> Choice:
        """The choice for [T, E] in float32."""
        return choose_by_sigmoid(logits, self.expert_bias, self.config.moe_router_topk, self.how)

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> Choice:
        """[T, E] weights and [T, E] whether an expert is chosen, as Megatron's dispatcher wants it."""
        del padding_mask
        logits = logits.view(-1, self.config.num_moe_experts)
        weights, chosen = self.choose(logits)
        spread = torch.zeros_like(logits).scatter(1, chosen, weights)
        return spread, torch.zeros_like(logits, dtype=torch.bool).scatter(1, chosen, value=True)


def choose_by_sigmoid(logits: Tensor, bias: Tensor, experts_per_token: int, how: SigmoidRouter) -> Choice:
    """The choice for [T, E] logits with [E] biases on their scores."""
    scores = logits.sigmoid()
    biased = scores.detach() + bias
    if how.groups > 1:
        grouped = biased.view(len(biased), how.groups, -1)  # [T, groups, E / groups]
        best = grouped.topk(RANKED_BY, dim=2).values.sum(2).topk(how.groups_per_token, dim=1).indices
        taken = torch.zeros(grouped.shape[:2], dtype=torch.bool, device=logits.device).scatter(1, best, value=True)
        biased = grouped.masked_fill(~taken[:, :, None], -torch.inf).flatten(1)
    chosen = biased.topk(experts_per_token, dim=1).indices
    weights = scores.gather(1, chosen)
    return weights / (weights.sum(1, keepdim=True) + LEAST_SUM) * how.scale, chosen
