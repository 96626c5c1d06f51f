"""The choice of experts, weights and gradients of it, against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.megatron.layers.routers import choose_by_sigmoid
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
    weights, numbers = choose_by_sigmoid(ours_in, bias, chosen, how)
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
    without = choose_by_sigmoid(wanted, torch.zeros(experts), chosen, how)[1]
    assert not torch.equal(without.sort(1).values, numbers.sort(1).values), "the bias chooses"
