"""Models with experts: the same losses, gradients, weights and checkpoints however the experts are shared out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from ranks import run_ranks
from test_layouts import _check_same
from tiny_models import tiny_model

EP2 = {"placement": {"expert_parallel": 2}}
EP4 = {"placement": {"expert_parallel": 4}}
PP2_EP2 = {"placement": {"pipeline_parallel": 2, "expert_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
RECOMPUTE = {"train": {"recompute": "full"}}
ALONE = {
    "plain": {},
    "distopt": DISTRIBUTED,
    "recompute": RECOMPUTE,
    "small_rows": {"train": {"max_tokens_per_micro_batch": 40}},
}
TWO = {
    "dp2": {},
    "pp2": {"placement": {"pipeline_parallel": 2}},
    "ep2": EP2,
    "ep2-distopt": {**EP2, **DISTRIBUTED},
    "ep2-recompute": {**EP2, **RECOMPUTE},
}
FOUR = {"ep4": EP4, "ep2-dp2": EP2, "ep2-dp2-distopt": {**EP2, **DISTRIBUTED}, "pp2-ep2": PP2_EP2}
ACTIONS = [["update", 0], ["update", 1], ["update", 2], ["buckets", 20000]]
LONELY = [["update", 0, 1]]  # one sample per optimiser step: some ranks have none, and tokens come to them all the same


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("experts")
    model = str(tiny_model("qwen3_moe", folder / "model"))
    result: dict[str, list[Any]] = {}
    for size, layouts in ((1, ALONE), (2, TWO), (4, FOUR)):
        cases = {name: {"model": model, "config": config, "actions": ACTIONS} for name, config in layouts.items()}
        lonely = {"placement": {"expert_parallel": size}}
        cases[f"lonely{size}"] = {"model": model, "config": lonely, "actions": LONELY}
        result |= run_ranks(folder / str(size), size, cases)
    return result


@pytest.mark.parametrize("case", [name for name in (*ALONE, *TWO, *FOUR) if name != "plain"])
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], case: str) -> None:
    assert len(outcomes[case]) == len(ACTIONS), outcomes[case]
    _check_same(outcomes[case][:3], outcomes["plain"][:3])


@pytest.mark.parametrize("case", [name for name in (*ALONE, *TWO, *FOUR) if name != "plain"])
def test_same_weights_under_the_same_names(outcomes: dict[str, list[Any]], case: str) -> None:
    found, wanted = (
        {name: (numel, total) for bucket in outcomes[which][3] for name, numel, total in bucket}
        for which in (case, "plain")
    )
    assert found.keys() == wanted.keys()
    for name, (numel, total) in wanted.items():
        assert found[name][0] == numel
        assert found[name][1] == pytest.approx(total, abs=2e-3), name


@pytest.mark.parametrize("case", ["lonely2", "lonely4"])
def test_a_rank_without_samples_takes_part(outcomes: dict[str, list[Any]], case: str) -> None:
    _check_same(outcomes[case], outcomes["lonely1"])
