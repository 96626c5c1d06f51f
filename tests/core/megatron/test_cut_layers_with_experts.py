"""Tensor parallel of models with experts: attention is cut, experts stay whole and are shared out over the same ranks.

For each family the same losses, log-probs, gradients and updates as on one rank, and checkpoints that go on there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, LATENT, SEEING_EXPERTS, SIGMOID_EXPERTS, SINKS, STATEFUL, tiny_models

KINDS = (EXPERTS, *SIGMOID_EXPERTS, STATEFUL, SEEING_EXPERTS, SINKS)
MORE = (EXPERTS, STATEFUL)  # with the distributed optimiser, too
SAVED = (*MORE, LATENT[0], SINKS)
TP2 = {"tensor_parallel": 2, "sequence_parallel": True}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
TP2_EP2 = {"placement": {**TP2, "expert_parallel": 2}}
SHARED = {"placement": TP2_EP2["placement"], "train": {"use_distributed_optimizer": True, "recompute": "full"}}
FOUR = {
    "tp2-ep4": {"placement": {**TP2, "expert_parallel": 4}},
    "tp2-ep2-dp2-distopt": {**TP2_EP2, **DISTRIBUTED},
    "tp4-ep2": {"placement": {**TP2, "tensor_parallel": 4, "expert_parallel": 2}},
    "tp2-ep2-pp2": {"placement": {**TP2_EP2["placement"], "pipeline_parallel": 2}},
}
UPDATES = [["update", 0], ["update", 1]]
SEED = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(KINDS, folder / "models")

    def case(kind: str, name: str, config: dict[str, Any], *actions: Any) -> dict[str, Any]:
        gradients = [["learn_from", SEED, str(folder / f"{kind} {name}"), False]]
        return {"model": models[kind], "config": config, "actions": [*gradients, *(actions or UPDATES)]}

    found = run_ranks(folder / "1", 1, {f"{kind} plain": case(kind, "plain", {}) for kind in KINDS})
    two = {}
    for kind in KINDS:
        saved = [["save", str(folder / f"saved {kind}")]] if kind in SAVED else []
        two[f"{kind} tp2-ep2"] = case(kind, "tp2-ep2", TP2_EP2, UPDATES[0], *saved, UPDATES[1])
    two |= {f"{kind} distopt-recompute": case(kind, "distopt", SHARED) for kind in MORE}
    found |= run_ranks(folder / "2", 2, two)
    four = {f"{EXPERTS} {name}": case(EXPERTS, name, config) for name, config in FOUR.items()}
    found |= run_ranks(folder / "4", 4, four)
    loaded = {
        kind: {"model": models[kind], "actions": [["load", str(folder / f"saved {kind}")], UPDATES[1]]}
        for kind in SAVED
    }
    return found | run_ranks(folder / "loaded", 1, {f"{kind} loaded": one for kind, one in loaded.items()})


CASES = [
    *(f"{kind} tp2-ep2" for kind in KINDS),
    *(f"{kind} distopt-recompute" for kind in MORE),
    *(f"{EXPERTS} {name}" for name in FOUR),
]
WHOLE = [case for case in CASES if "distopt" not in case]  # of whose gradients each rank has all


@pytest.mark.parametrize("case", CASES)
def test_same_losses_log_probs_and_updates(outcomes: dict[str, list[Any]], case: str) -> None:
    found = [one for one in outcomes[case] if isinstance(one, dict)]
    assert len(found) == 3, outcomes[case]
    check_same(found, outcomes[f"{case.split()[0]} plain"])


@pytest.mark.parametrize("case", WHOLE)
def test_same_gradients(outcomes: dict[str, list[Any]], folder: Path, case: str) -> None:
    assert isinstance(outcomes[case][0], dict), outcomes[case]
    ours, plain = load_file(folder / case), load_file(folder / f"{case.split()[0]} plain")
    assert ours.keys() == plain.keys()
    for name, wanted in plain.items():
        assert torch.allclose(ours[name], wanted, atol=1e-4 * float(wanted.abs().max()) + 1e-7), name


@pytest.mark.parametrize("kind", SAVED)
def test_a_checkpoint_goes_on_on_one_rank(outcomes: dict[str, list[Any]], kind: str) -> None:
    check_same(outcomes[f"{kind} loaded"][1:], outcomes[f"{kind} plain"][2:])
