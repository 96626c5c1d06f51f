"""Experts that are cut over tensor-parallel ranks: the same losses, log-probs, gradients and updates as on one rank.

Checkpoints go on where experts are whole, or cut otherwise, and ranks keep as much as the plan says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelcfg
from core.megatron.sizes.activations import Pass, layer_bytes
from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, SEEING_EXPERTS, SIGMOID_EXPERTS, STATEFUL, tiny_models

KINDS = (EXPERTS, *SIGMOID_EXPERTS, STATEFUL, SEEING_EXPERTS)
TP2 = {"tensor_parallel": 2, "sequence_parallel": True}
ETP2 = {**TP2, "expert_tensor_parallel": 2}
EP2_ETP2 = {**ETP2, "expert_parallel": 2}
TP4 = {**ETP2, "tensor_parallel": 4}
DISTRIBUTED = {"use_distributed_optimizer": True}
TWO: dict[str, dict[str, Any]] = {
    "tp2-etp2": {"placement": ETP2},
    "tp2-etp2-distopt-recompute": {"placement": ETP2, "train": {**DISTRIBUTED, "recompute": "full"}},
    "tp2-etp2-selective": {"placement": ETP2, "train": {"recompute": "selective"}},
    "tp2-etp2-small-rows": {"placement": ETP2, "train": {"max_tokens_per_micro_batch": 40}},
}
FOUR: dict[str, dict[str, Any]] = {
    "tp2-ep2-etp2": {"placement": EP2_ETP2},
    "tp2-ep2-etp2-distopt": {"placement": EP2_ETP2, "train": DISTRIBUTED},
    "tp2-etp2-dp2": {"placement": ETP2},
    "tp2-etp2-dp2-distopt": {"placement": ETP2, "train": DISTRIBUTED},
    "tp2-etp2-cp2": {"placement": {**ETP2, "context_parallel": 2}},
    "tp2-etp2-pp2": {"placement": {**ETP2, "pipeline_parallel": 2}},
    "tp4-ep2-etp2": {"placement": {**TP4, "expert_parallel": 2}},
    "tp4-etp4": {"placement": {**TP4, "expert_tensor_parallel": 4}},
}
OF_ALL = ("tp2-etp2", "tp2-ep2-etp2")  # for all kinds, with an update less
SAVED = (*OF_ALL, "tp2-etp2-distopt-recompute", "tp2-ep2-etp2-distopt")
# checkpoint, number of ranks and config that go on with it
READERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "cut as whole on one rank": ("tp2-etp2", 1, {}),
    "cut as expert parallel": ("tp2-etp2", 2, {"placement": {**TP2, "expert_parallel": 2}}),
    "cut as both": ("tp2-etp2", 4, {"placement": EP2_ETP2}),
    "both as cut": ("tp2-ep2-etp2", 2, {"placement": ETP2}),
    "both as both": ("tp2-ep2-etp2", 4, {"placement": EP2_ETP2}),
    "both as whole on one rank": ("tp2-ep2-etp2", 1, {}),
    "shared out, cut as whole on one rank": ("tp2-etp2-distopt-recompute", 1, {"train": DISTRIBUTED}),
    "shared out, both as cut": ("tp2-ep2-etp2-distopt", 2, {"placement": ETP2, "train": DISTRIBUTED}),
    "shared out, both as both": ("tp2-ep2-etp2-distopt", 4, {"placement": EP2_ETP2, "train": DISTRIBUTED}),
}
UPDATES = [["update", 0], ["update", 1]]
SEED = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(KINDS, folder / "models")

    def case(kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
        first = [["learn_from", SEED, str(folder / f"{kind} {name}"), False]]
        saved = [["save", str(folder / f"saved {name}")]] if name in SAVED and kind == EXPERTS else []
        later = [*saved, UPDATES[1]] if kind == EXPERTS else []
        return {"model": models[kind], "config": config, "actions": [*first, UPDATES[0], *later]}

    found: dict[str, list[Any]] = {}
    layouts = {1: {"plain": {}}, 2: TWO, 4: FOUR}
    for size, configs in layouts.items():
        kinds = {name: KINDS if size == 1 or name in OF_ALL else (EXPERTS,) for name in configs}
        cases = {f"{k} {n}": case(k, n, config) for n, config in configs.items() for k in kinds[n]}
        found |= run_ranks(folder / str(size), size, cases)
    whole = {**TP2, "expert_parallel": 2}
    found |= run_ranks(
        folder / "kept",
        2,
        {
            name: {"model": models[EXPERTS], "config": {"placement": placement}, "actions": ["kept"]}
            for name, placement in (("kept whole", whole), ("kept cut", ETP2))
        },
    )
    for size in layouts:
        loaded = {
            name: {
                "model": models[EXPERTS],
                "config": config,
                "actions": [["load", str(folder / f"saved {saved}")], UPDATES[1]],
            }
            for name, (saved, ranks, config) in READERS.items()
            if ranks == size
        }
        found |= run_ranks(folder / f"loaded{size}", size, loaded)
    return found


CASES = [
    *(f"{EXPERTS} {name}" for name in (*TWO, *FOUR)),
    *(f"{kind} {name}" for kind in KINDS if kind != EXPERTS for name in OF_ALL),
]
WHOLE = [case for case in CASES if "distopt" not in case]  # of whose gradients each rank has all


@pytest.mark.parametrize("case", CASES)
def test_same_losses_log_probs_and_updates(outcomes: dict[str, list[Any]], case: str) -> None:
    found = [one for one in outcomes[case] if isinstance(one, dict)]
    plain = outcomes[f"{case.split()[0]} plain"]
    assert len(found) == len(plain) > 1, outcomes[case]
    check_same(found, plain)


@pytest.mark.parametrize("case", WHOLE)
def test_same_gradients(outcomes: dict[str, list[Any]], folder: Path, case: str) -> None:
    assert isinstance(outcomes[case][0], dict), outcomes[case]
    ours, plain = load_file(folder / case), load_file(folder / f"{case.split()[0]} plain")
    assert ours.keys() == plain.keys()
    for name, wanted in plain.items():
        assert torch.allclose(ours[name], wanted, atol=1e-5 * float(wanted.abs().max()) + 1e-7), name


@pytest.mark.parametrize("name", READERS)
def test_a_checkpoint_goes_on_however_experts_are_cut(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[name]) == 2, outcomes[name]
    check_same(outcomes[name][1:], outcomes[f"{EXPERTS} plain"][2:])


def test_as_much_more_is_kept_as_is_planned(outcomes: dict[str, list[Any]], folder: Path) -> None:
    """Where experts are whole, ranks have other numbers of tokens each: both together."""
    ((whole, tokens),), ((cut, same_tokens),) = outcomes["kept whole"], outcomes["kept cut"]
    shape = modelcfg.from_hf(json.loads((folder / "models" / EXPERTS / "config.json").read_text()))
    how = {"attention": "plain", "tensor_parallel": 2, "sequence_parallel": True}
    planned = [layer_bytes(shape, Pass(4, **how, **{key: 2})) for key in ("expert_parallel", "expert_tensor_parallel")]
    assert tokens == same_tokens
    assert cut - whole == 2 * tokens * shape.num_layers * (planned[1] - planned[0]) > 0
