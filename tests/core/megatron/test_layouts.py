"""The same updates under every parallel layout give the same losses, gradient norms and log-probs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from ranks import run_ranks
from tiny_models import KINDS, tiny_model

TP2 = {"placement": {"tensor_parallel": 2}}
SP2 = {"placement": {"tensor_parallel": 2, "sequence_parallel": True}}
PP2 = {"placement": {"pipeline_parallel": 2}}
TP2PP2 = {"placement": {"tensor_parallel": 2, "pipeline_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
RECOMPUTE = {"train": {"recompute": "full"}}
SMALL_ROWS = {"train": {"max_tokens_per_micro_batch": 40}}
UNSHARED = {"train": {"share_prompts": False}}

ALONE = {"plain": {}, "distopt": DISTRIBUTED, "recompute": RECOMPUTE, "small_rows": SMALL_ROWS, "unshared": UNSHARED}
TWO = {
    "tp2": TP2,
    "sp2": SP2,
    "pp2": PP2,
    "dp2": {},
    "dp2-distopt": DISTRIBUTED,
    "pp2-small_rows": {**PP2, **SMALL_ROWS},
    "sp2-recompute": {**SP2, **RECOMPUTE},
    "dp2-small_rows-unshared": {"train": {"max_tokens_per_micro_batch": 40, "share_prompts": False}},
}
FOUR = {"tp2-dp2": TP2, "tp2-dp2-distopt": {**TP2, **DISTRIBUTED}, "tp2-pp2": TP2PP2}
EVERYWHERE = ("llama", "qwen3")  # the other kinds differ in biases and tied weights only: fewer layouts
FEWER = ("tp2", "pp2", "sp2")
UPDATES = [["update", seed] for seed in (0, 1, 2)]


def _cases(models: dict[str, str], layouts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{kind}/{layout}": {"model": models[kind], "config": config, "actions": UPDATES}
        for kind in KINDS
        for layout, config in layouts.items()
        if kind in EVERYWHERE or layout in FEWER or layout == "plain"
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("layouts")
    models = {kind: str(tiny_model(kind, folder / kind)) for kind in KINDS}
    result: dict[str, list[Any]] = {}
    for size, layouts in ((1, ALONE), (2, TWO), (4, FOUR)):
        result |= run_ranks(folder / str(size), size, _cases(models, layouts))
    return result


ALL = [f"{k}/{x}" for k in KINDS for x in (*ALONE, *TWO, *FOUR) if x != "plain" and (k in EVERYWHERE or x in FEWER)]


@pytest.mark.parametrize("case", ALL)
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], case: str) -> None:
    kind = case.split("/")[0]
    assert len(outcomes[case]) == 3, outcomes[case]
    for found, wanted in zip(outcomes[case], outcomes[f"{kind}/plain"], strict=True):
        for name, value in wanted["metrics"].items():
            if name.startswith("train/"):
                assert found["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
        for ours, theirs in zip(found["logprobs"], wanted["logprobs"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_updates_move_the_model(outcomes: dict[str, list[Any]]) -> None:
    losses = [update["metrics"]["train/loss"] for update in outcomes["llama/plain"]]
    assert len(set(losses)) == 3
    assert all(update["metrics"]["train/kl_loss"] > 0 for update in outcomes["llama/plain"][1:])
