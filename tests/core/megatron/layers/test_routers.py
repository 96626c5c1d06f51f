"""The choice of experts, weights and gradients of it, against transformers' own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.megatron.layers.routers import Router, Sigmoid, Softmax, best_by_sigmoid, sigmoid_weights
from core.megatron.layers.routing import RowRouting
from modelcfg import SigmoidRouter
from tests.support.tiny_models import tiny_config


@pytest.mark.parametrize(
    ("experts", "chosen", "how"),
    [
        pytest.param(8, 3, SigmoidRouter(scale=2.5), id="one group"),
        pytest.param(16, 3, SigmoidRouter(groups=4, groups_per_token=2), id="two of four groups"),
        pytest.param(12, 4, SigmoidRouter(groups=3, groups_per_token=1, scale=0.5), id="all of one group"),
    ],
)
def test_the_choice_is_that_of_transformers(experts: int, chosen: int, how: SigmoidRouter) -> None:
    from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeMoE

    sizes = {"n_routed_experts": experts, "num_experts_per_tok": chosen, "routed_scaling_factor": how.scale}
    config = tiny_config("glm4_moe", **sizes, n_group=how.groups, topk_group=how.groups_per_token)
    torch.manual_seed(0)
    bias, wanted = torch.randn(experts) * 0.3, torch.randn(500, experts)
    theirs: Any = Glm4MoeMoE(config)
    theirs.gate.e_score_correction_bias.copy_(bias)
    ours_in, theirs_in = (wanted.clone().requires_grad_() for _ in range(2))
    scores = ours_in.sigmoid()
    numbers = best_by_sigmoid(scores.detach(), bias, chosen, how)
    weights = sigmoid_weights(scores, numbers, how)
    other_numbers, other_weights = theirs.route_tokens_to_experts(theirs_in)
    for index, values, leaf in ((numbers, weights, ours_in), (other_numbers, other_weights, theirs_in)):
        torch.zeros(500, experts).scatter(1, index, values).square().sum().backward()
        assert leaf.grad is not None
    spread, others = (
        torch.zeros(500, experts).scatter(1, index, values.detach())
        for index, values in ((numbers, weights), (other_numbers, other_weights))
    )
    assert torch.equal(spread > 0, others > 0)
    torch.testing.assert_close(spread, others)
    torch.testing.assert_close(ours_in.grad, theirs_in.grad)
    without = best_by_sigmoid(wanted.sigmoid(), torch.zeros(experts), chosen, how)
    assert not torch.equal(without.sort(1).values, numbers.sort(1).values), "the bias chooses"


@pytest.mark.parametrize("kind", [Softmax, Sigmoid])
def test_replayed_experts_have_weights_of_the_routers_own_logits(kind: type[Router]) -> None:
    torch.manual_seed(0)
    logits, given = torch.randn(50, 8), torch.stack([torch.randperm(8)[:2] for _ in range(50)])
    router = kind.__new__(kind)
    torch.nn.Module.__init__(router)
    router.config, router.layer_number = SimpleNamespace(moe_router_topk=2, num_moe_experts=8), 1
    router.how = SigmoidRouter(scale=2.5)
    router.register_buffer("expert_bias", torch.zeros(8))
    router.row = RowRouting(given[:, None].short())
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    spread, taken = router.routing(ours)
    picked = theirs.gather(1, given)
    wanted = picked.softmax(1) if kind is Softmax else 2.5 * picked.sigmoid() / picked.sigmoid().sum(1, keepdim=True)
    assert taken.sum(1).tolist() == [2] * 50
    torch.testing.assert_close(spread.gather(1, given), wanted)
    spread.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    router.row = None
    _, own = router.choose(logits)
    assert not torch.equal(own.sort(1).values, given.sort(1).values), "it would have taken others"
