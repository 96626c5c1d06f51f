"""Models with windows, sinks and biases: the same losses and gradients in every layout, however rows are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import SINKS, tiny_model

DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
PP2 = {"placement": {"pipeline_parallel": 2}}
ALONE = {
    "plain": {},
    "unshared": {"train": {"share_prompts": False}},
    "small_rows_recompute": {"train": {"max_tokens_per_micro_batch": 40, "recompute": "selective"}},
}
TWO = {
    "pp2": PP2,
    "ep2-distopt": {"placement": {"expert_parallel": 2}, **DISTRIBUTED},
    "cp2": {"placement": {"context_parallel": 2}},
}
LORA = {"rank": 3, "targets": ["q_proj", "o_proj"]}
UPDATES = [["update", 0], ["update", 1]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder: Path = tmp_path_factory.mktemp("windows")
    model = str(tiny_model(SINKS, folder / "model"))

    def case(config: dict[str, Any], actions: list[Any]) -> dict[str, Any]:
        return {"model": model, "config": config, "actions": actions}

    alone = {name: case(config, UPDATES) for name, config in ALONE.items()}
    alone["lora"] = case({"train": {"lora": LORA}, "model": {"dtype": "bfloat16"}}, ["off_plan", *UPDATES])
    result = run_ranks(folder / "1", 1, alone)
    saved = ["save", str(folder / "saved")]
    two = {name: case(config, UPDATES) for name, config in TWO.items()}
    two["pp2"] = case(PP2, [UPDATES[0], saved, UPDATES[1]])
    result |= run_ranks(folder / "2", 2, two)
    return result | run_ranks(folder / "3", 1, {"loaded": case({}, [["load", saved[1]], UPDATES[1]])})


@pytest.mark.parametrize("name", [*(name for name in ALONE if name != "plain"), *TWO])
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], name: str) -> None:
    updates = [found for found in outcomes[name] if isinstance(found, dict)]
    assert len(updates) == 2, outcomes[name]
    check_same(updates, outcomes["plain"])


def test_a_checkpoint_of_two_stages_goes_on_in_one(outcomes: dict[str, list[Any]]) -> None:
    check_same(outcomes["loaded"][1:], outcomes["plain"][1:])


def test_adapters_beside_biases_have_the_planned_bytes_and_learn(outcomes: dict[str, list[Any]]) -> None:
    planned, first, second = outcomes["lora"]
    assert planned == {}
    assert first["metrics"]["train/grad_norm"] > 0
    assert second["metrics"]["train/kl_loss"] > 0
