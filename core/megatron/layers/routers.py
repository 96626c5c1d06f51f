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

from core.megatron.layers.routing import RowRouting
from modelcfg import ModelShape, SigmoidRouter

FIXED = ".router.expert_bias"  # the end of the name of each bias
RANKED_BY = 2  # experts of a group
LEAST_SUM = 1e-20

Choice = tuple[Tensor, Tensor]  # [T, k] weights, [T, k] numbers of experts


def router_of(shape: ModelShape) -> Callable[..., TopKRouter]:
    """Class of a layer's router."""
    return Softmax if shape.router is None else partial(Sigmoid, how=shape.router)


class Router(TopKRouter):  # type: ignore[misc]
    """A choice in three parts, so that experts which others have chosen can take the place of its own."""

    row: RowRouting | None = None  # of the pass under way; None: nothing is replayed or noted

    def scores(self, logits: Tensor) -> Tensor:
        """[T, E] of [T, E]."""
        raise NotImplementedError

    def best(self, scores: Tensor) -> Tensor:
        """[T, k] numbers of the experts that this router takes for [T, E] scores; no gradient passes here."""
        raise NotImplementedError

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """[T, k] weights of these experts' results, whoever has chosen them."""
        raise NotImplementedError

    def choose(self, logits: Tensor) -> Choice:
        """The choice for [T, E], without Megatron's map of all experts."""
        scores = self.scores(logits)
        chosen = self.best(scores.detach())
        if self.row is not None:
            chosen = self.row.settle(self.layer_number - 1, chosen)
        return self.weights(scores, chosen), chosen

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> Choice:
        """[T, E] weights and [T, E] whether an expert is chosen, as Megatron's dispatcher wants it."""
        del padding_mask
        logits = logits.view(-1, self.config.num_moe_experts)
        weights, chosen = self.choose(logits)
        spread = torch.zeros_like(logits).scatter(1, chosen, weights)
        return spread, torch.zeros_like(logits, dtype=torch.bool).scatter(1, chosen, value=True)


class Softmax(Router):
    """Megatron's router, as it is where nothing is replayed."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits

    def best(self, scores: Tensor) -> Tensor:
        return scores.topk(self.config.moe_router_topk, dim=1).indices

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        return scores.gather(1, chosen).softmax(1, dtype=torch.float32).type_as(scores)

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> Choice:
        if self.row is not None:
            return super().routing(logits, padding_mask)
        choice: Choice = TopKRouter.routing(self, logits, padding_mask)
        return choice


class Sigmoid(Router):
    """Megatron's gate in float32, and a bias that is part of the weights but of no gradient."""

    def __init__(self, config: Any, how: SigmoidRouter, **options: Any) -> None:
        super().__init__(config, **options)
        self.how = how
        del self.expert_bias  # Megatron's own would be moved with every step
        zeros = torch.zeros(config.num_moe_experts, dtype=torch.float32, device=torch.cuda.current_device())
        self.register_buffer("expert_bias", zeros)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def best(self, scores: Tensor) -> Tensor:
        return best_by_sigmoid(scores, self.expert_bias, self.config.moe_router_topk, self.how)

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        return sigmoid_weights(scores, chosen, self.how)


def best_by_sigmoid(scores: Tensor, bias: Tensor, experts_per_token: int, how: SigmoidRouter) -> Tensor:
    """[T, k] numbers of the experts of the best scores, with [E] biases on these [T, E]."""
    biased = scores + bias
    if how.groups > 1:
        grouped = biased.view(len(biased), how.groups, -1)  # [T, groups, E / groups]
        best = grouped.topk(RANKED_BY, dim=2).values.sum(2).topk(how.groups_per_token, dim=1).indices
        taken = torch.zeros(grouped.shape[:2], dtype=torch.bool, device=scores.device).scatter(1, best, value=True)
        biased = grouped.masked_fill(~taken[:, :, None], -torch.inf).flatten(1)
    return biased.topk(experts_per_token, dim=1).indices


def sigmoid_weights(scores: Tensor, chosen: Tensor, how: SigmoidRouter) -> Tensor:
    """[T, k] weights of the chosen experts: their [T, E] scores, made to sum to `scale`."""
    weights = scores.gather(1, chosen)
    return weights / (weights.sum(1, keepdim=True) + LEAST_SUM) * how.scale
