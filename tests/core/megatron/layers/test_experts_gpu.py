"""A model with experts on a GPU: products over all experts give what Megatron's loop over them gives."""

from __future__ import annotations

from unittest.mock import PropertyMock, patch

import pytest
import torch
from torch import Tensor

import modelcfg
from core.megatron.layers import experts

pytestmark = pytest.mark.gpu
SMALL = {
    **{"num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 96, "num_experts": 16, "experts_per_token": 4},
    **{"num_attention_heads": 4, "num_query_groups": 2, "head_dim": 64, "vocab_size": 40960},
}
WAYS = {  # whether tokens stay with their rank, whether experts are computed together
    "products": (True, True),
    "products behind the dispatcher": (False, True),
    "loop": (False, False),
}
OURS = pytest.mark.parametrize("way", ["products", "products behind the dispatcher"])
Gradients = dict[str, Tensor]


def gradients_of(way: str, dtype: torch.dtype) -> Gradients:
    """By Megatron's name, of one row, from weights that are the same but for rounding."""
    from bench.mfu import Case

    stays, together = WAYS[way]
    shape = modelcfg.load("qwen3-30b-a3b").model_copy(update=SMALL)
    with (
        patch.object(experts.ExpertLayer, "stays_here", PropertyMock(return_value=stays)),
        patch.object(experts, "can_group", lambda _: together),
    ):
        case = Case(shape, tokens=1024, recompute=0, dtype=dtype)
        if dtype == torch.float32:
            with torch.no_grad():
                for parameter in case.model.parameters():
                    parameter.copy_(parameter.bfloat16())
        case.compute()
        return {name: p.main_grad.clone() for name, p in case.model.module.named_parameters()}


@pytest.fixture(scope="module")
def gradients() -> dict[tuple[str, torch.dtype], Gradients]:
    """By way and precision."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from tests.support.gpu_models import only_rank

    with only_rank():
        return {(way, dtype): gradients_of(way, dtype) for way in WAYS for dtype in (torch.float32, torch.bfloat16)}


def error(found: Gradients, wanted: Gradients, name: str) -> float:
    return float((found[name] - wanted[name]).norm() / wanted[name].norm())


@OURS
def test_gradients_are_those_of_the_loop(gradients: dict[tuple[str, torch.dtype], Gradients], way: str) -> None:
    wanted = gradients["loop", torch.float32]
    errors = {name: error(gradients[way, torch.float32], wanted, name) for name in wanted}
    assert max(errors.values()) < 1e-3, errors


@OURS
def test_bfloat16_rounds_no_more_than_in_the_loop(
    gradients: dict[tuple[str, torch.dtype], Gradients], way: str
) -> None:
    wanted = gradients["loop", torch.float32]
    of_ours, of_loop = (
        sum(error(gradients[which, torch.bfloat16], wanted, name) for name in wanted) for which in (way, "loop")
    )
    assert of_ours < 1.3 * of_loop  # where a token is near a tie, rounding sends it to another expert


def test_every_expert_learns(gradients: dict[tuple[str, torch.dtype], Gradients]) -> None:
    found = gradients["products", torch.bfloat16]
    of_experts = [gradient for name, gradient in found.items() if "local_experts" in name]
    assert len(of_experts) == 2 * SMALL["num_layers"] * SMALL["num_experts"]
    assert all(gradient.abs().sum() > 0 for gradient in of_experts)
