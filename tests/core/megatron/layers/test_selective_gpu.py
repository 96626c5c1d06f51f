"""Selective recompute on a GPU: the gradients of none, with as much less memory as is planned."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import modelcfg
from core.megatron.sizes.activations import Pass, layer_bytes

pytestmark = pytest.mark.gpu
DENSE = {"num_layers": 3, "vocab_size": 40960}  # few numbers of the vocabulary: layers are what there is most of
EXPERTS = {
    **{"num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 96, "num_experts": 16, "experts_per_token": 4},
    **{"num_attention_heads": 4, "num_query_groups": 2, "head_dim": 64, "vocab_size": 40960},
}
MODELS = {"qwen3-0.6b": DENSE, "qwen3-30b-a3b": EXPERTS}
TOKENS = 8192


@dataclass(frozen=True)
class Found:
    """Of one row."""

    gradients: dict[str, Tensor]
    peak_bytes: int


def compute(name: str, selective: bool) -> Found:
    """A row forward and backward, from the same weights."""
    from bench.mfu import Case

    case = Case(modelcfg.load(name).model_copy(update=MODELS[name]), TOKENS, 0, selective=selective)
    case.compute()
    torch.cuda.reset_peak_memory_stats()
    case.compute()
    gradients = {name: p.main_grad.cpu() for name, p in case.model.module.named_parameters()}
    return Found(gradients, torch.cuda.max_memory_allocated())


@pytest.fixture(scope="module", params=MODELS)
def both(request: pytest.FixtureRequest) -> tuple[str, Found, Found]:
    """A model's name; without and with selective recompute."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from tests.support.gpu_models import only_rank

    with only_rank():
        return request.param, compute(request.param, selective=False), compute(request.param, selective=True)


def test_gradients_are_the_same(both: tuple[str, Found, Found]) -> None:
    """But for the order in which attention's backward pass adds up."""
    _, plain, selective = both
    for name, wanted in plain.gradients.items():
        error = float((selective.gradients[name] - wanted).norm() / wanted.norm())
        assert error < 0.01, name


def test_memory_is_as_planned(both: tuple[str, Found, Found]) -> None:
    """At the logits, where every layer keeps what it keeps."""
    name, plain, selective = both
    shape = modelcfg.load(name).model_copy(update=MODELS[name])
    none, some = (layer_bytes(shape, Pass(2, selective=again)) for again in (False, True))
    planned = TOKENS * shape.num_layers * (none - some)
    assert plain.peak_bytes - selective.peak_bytes == pytest.approx(planned, rel=0.05)
