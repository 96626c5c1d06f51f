"""Norms and activations that are made again in the backward pass: the same bits, and as much less kept as planned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modelcfg
from core.megatron.layers import made_again
from core.megatron.layers.made_again import LayerOutputs, _making_again
from core.megatron.sizes.activations import Pass, layer_bytes
from tests.support.ranks import OVER_TWO, run_ranks
from tests.support.tiny_models import EXPERTS, LATENT, POST_NORMS, STATEFUL, WHOLE_NORMS, tiny_models

SELECTIVE = {"recompute": "selective"}
ALONE: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "lora": {"train": {"lora": {"rank": 4, "alpha": 8}}},
    "critic": {"algorithm": {"advantage_estimator": "gae"}},
}
TWO = {**OVER_TWO, "dp2-distopt": {"train": {"use_distributed_optimizer": True}}}
EXACT = ("llama", POST_NORMS, EXPERTS, WHOLE_NORMS)
MODELS = (*EXACT, STATEFUL, *LATENT)
ACTIONS = [["update", 0], ["update", 1], ["log_probs", 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selective")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(MODELS, folder)

    def cases(kind: str, settings: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        return {
            f"{kind} {name}{again and ' selective'}": {
                "model": models[kind],
                "config": {**config, "train": {**config.get("train", {}), **(SELECTIVE if again else {})}},
                "actions": ACTIONS,
            }
            for name, config in settings.items()
            for again in ("", "selective")
        }

    plain = {"plain": ALONE["plain"]}
    one = cases("llama", ALONE) | {name: case for kind in MODELS[1:] for name, case in cases(kind, plain).items()}
    for kind in MODELS:
        for again, train in (("", {}), (" selective", SELECTIVE)):
            one[f"{kind} kept{again}"] = {"model": models[kind], "config": {"train": train}, "actions": ["kept"]}
    two = cases("llama", TWO) | cases(EXPERTS, {"ep2": {"placement": {"expert_parallel": 2}}})
    return run_ranks(folder / "1", 1, one) | run_ranks(folder / "2", 2, two)


CASES = [f"llama {name}" for name in (*ALONE, *TWO)] + [f"{kind} plain" for kind in MODELS[1:]] + [f"{EXPERTS} ep2"]


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(outcomes: dict[str, list[Any]], name: str) -> None:
    assert outcomes[f"{name} selective"] == outcomes[name]
    assert len(outcomes[name]) == len(ACTIONS), outcomes[name]


@pytest.mark.parametrize("kind", MODELS)
def test_as_much_less_is_kept_as_is_planned(outcomes: dict[str, list[Any]], folder: Path, kind: str) -> None:
    ((plain, tokens),), ((selective, same_tokens),) = outcomes[f"{kind} kept"], outcomes[f"{kind} kept selective"]
    shape = modelcfg.from_hf(json.loads((folder / kind / "config.json").read_text()))
    how = Pass(4, attention="plain")
    planned = sum(
        layer_bytes(shape, how, experts=experts) - layer_bytes(shape, replace(how, selective=True), experts=experts)
        for experts in map(shape.has_experts, range(shape.num_layers))
    )
    assert tokens == same_tokens
    if kind in EXACT:
        assert plain - selective == tokens * planned
    else:  # what some save twice, or behind further norms, is less than nothing to the plan
        assert plain - selective >= tokens * planned


def test_what_is_kept_in_its_place() -> None:
    """A recipe of a norm's output, for whoever saves all of it under whatever shape; a part of it, and others, stay."""
    hidden, weight = torch.randn(6, 1, 8, requires_grad=True), torch.randn(8, requires_grad=True)

    def scale(x: Tensor, w: Tensor) -> Tensor:
        return x * w

    outputs = LayerOutputs()
    made = scale(hidden, weight)
    outputs.note(made, scale, (hidden, weight))
    for saved in (made, made.squeeze(1), made.view(-1)):
        packed = outputs.pack(saved)
        assert not isinstance(packed, Tensor)
        assert made_again._unpack(packed).equal(saved)
        assert made_again._unpack(packed).data_ptr() != saved.data_ptr()
    for other in (made[:3], made.squeeze(1).t(), hidden, made.clone()):
        assert outputs.pack(other) is other
    made.detach().mul_(2)
    assert outputs.pack(made) is made, "it is another by now"


def test_outside_such_a_layer_nothing_is_noted() -> None:
    hidden = torch.randn(4, requires_grad=True)
    with _making_again():
        seen = made_again._OUTPUTS.get()
        assert seen is not None
        with torch.no_grad():
            made_again.made_again(torch.exp, hidden)
        assert not seen._made
        made_again.made_again(torch.exp, hidden)
        assert len(seen._made) == 1
    assert made_again._OUTPUTS.get() is None
