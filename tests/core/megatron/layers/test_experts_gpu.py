"""A model with experts on a GPU: products over all experts give what Megatron's loop over them gives."""

from __future__ import annotations

from unittest.mock import PropertyMock, patch

import pytest
import torch

import modelcfg
from core.megatron.layers import experts

pytestmark = pytest.mark.gpu
SMALL = {
    **{"num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 96, "num_experts": 16, "experts_per_token": 4},
    **{"num_attention_heads": 4, "num_query_groups": 2, "head_dim": 64, "vocab_size": 1000},
}
WAYS = {
    "products": {},
    "products behind the dispatcher": {"stays_here": False},
    "loop": {"stays_here": False, "can_group": False},
}


@pytest.fixture(scope="module")
def gradients() -> dict[str, dict[str, torch.Tensor]]:
    """The gradients of a row by each way, from the same weights."""
    from bench.gpu_trainer import make_config, one_rank
    from bench.mfu import Case
    from core.megatron.parallel import initialise

    one_rank()
    initialise(make_config(8).placement, 0, "cuda")
    shape = modelcfg.load("qwen3-30b-a3b").model_copy(update=SMALL)
    found = {}
    for way, how in WAYS.items():
        stays = patch.object(experts.ExpertLayer, "stays_here", PropertyMock(return_value=how.get("stays_here", True)))
        groups = patch.object(experts, "can_group", lambda _, can=how.get("can_group", True): can)
        with stays, groups:
            case = Case(shape, tokens=1024, recompute=0)
            case.compute()
            found[way] = {name: p.main_grad.clone() for name, p in case.model.module.named_parameters()}
    return found


@pytest.mark.parametrize("way", ["products", "products behind the dispatcher"])
def test_gradients_are_those_of_the_loop(gradients: dict[str, dict[str, torch.Tensor]], way: str) -> None:
    for name, wanted in gradients["loop"].items():
        error = (gradients[way][name] - wanted).norm() / wanted.norm()
        assert error < 0.03, (name, float(error))  # bfloat16, and sums in another order


def test_every_expert_learns(gradients: dict[str, dict[str, torch.Tensor]]) -> None:
    of_experts = [gradient for name, gradient in gradients["products"].items() if "local_experts" in name]
    assert len(of_experts) == 2 * SMALL["num_layers"] * SMALL["num_experts"]
    assert all(gradient.abs().sum() > 0 for gradient in of_experts)
