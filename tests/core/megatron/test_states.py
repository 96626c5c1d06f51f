"""Models with states: the same losses, gradients and weights in every layout, and whether prompts are shared or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import SEEING, STATEFUL, tiny_models

EP2 = {"placement": {"expert_parallel": 2}}
PP2 = {"placement": {"pipeline_parallel": 2}}
TP2 = {"placement": {"tensor_parallel": 2}}
SP2 = {"placement": {"tensor_parallel": 2, "sequence_parallel": True}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
ALONE = {
    "plain": {},
    "unshared": {"train": {"share_prompts": False}},
    "recompute": {"train": {"recompute": "full"}},
    "small_rows": {"train": {"max_tokens_per_micro_batch": 40}},
}
TWO = {"dp2-distopt": DISTRIBUTED, "pp2": PP2, "ep2-distopt": {**EP2, **DISTRIBUTED}}
LORA = {"rank": 3, "targets": ["in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj", "o_proj"]}
LORA_APART = {**LORA, "targets": ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj", "q_proj"]}
UPDATES = [["update", 0], ["update", 1]]
# of the family whose projections are apart, and has no experts
APART = {
    "apart-pp2-distopt": {**PP2, **DISTRIBUTED},
    "apart-tp2": TP2,
    "apart-sp2-distopt-recompute": {**SP2, "train": {"use_distributed_optimizer": True, "recompute": "full"}},
}
BF16_LORA = {"train": {"lora": LORA_APART}, "model": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models((STATEFUL, SEEING), folder)

    def case(config: dict[str, Any], actions: list[Any], kind: str = STATEFUL) -> dict[str, Any]:
        return {"model": models[kind], "config": config, "actions": actions}

    alone = {name: case(config, [["log_probs", 3], *UPDATES]) for name, config in ALONE.items()}
    alone["lora"] = case({"train": {"lora": LORA}, "model": {"dtype": "bfloat16"}}, ["off_plan", *UPDATES])
    alone["apart"] = case({}, [["log_probs", 3], *UPDATES], SEEING)
    alone["apart-unshared"] = case(ALONE["unshared"], [["log_probs", 3], *UPDATES], SEEING)
    alone["apart-lora"] = case(BF16_LORA, ["off_plan", *UPDATES], SEEING)
    result = run_ranks(folder / "1", 1, alone)
    saved = ["save", str(folder / "saved")]
    two = {name: case(config, UPDATES) for name, config in TWO.items()}
    two["pp2"] = case(PP2, [UPDATES[0], saved, UPDATES[1]])
    two |= {name: case(config, UPDATES, SEEING) for name, config in APART.items()}
    cut = ["save", str(folder / "cut")]
    two["apart-tp2"] = case(TP2, [UPDATES[0], cut, UPDATES[1]], SEEING)
    result |= run_ranks(folder / "2", 2, two)
    loaded = {name: [["load", made[1]], UPDATES[1]] for name, made in (("loaded", saved), ("apart-loaded", cut))}
    return result | run_ranks(
        folder / "3",
        1,
        {name: case({}, actions, SEEING if "apart" in name else STATEFUL) for name, actions in loaded.items()},
    )


@pytest.mark.parametrize(("name", "alike"), [("unshared", "plain"), ("apart-unshared", "apart")])
def test_log_probs_do_not_depend_on_whether_prompts_are_shared(
    outcomes: dict[str, list[Any]], name: str, alike: str
) -> None:
    for found, wanted in zip(outcomes[name][0], outcomes[alike][0], strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", [*(name for name in ALONE if name != "plain"), *TWO, "apart-unshared", *APART])
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], name: str) -> None:
    updates = [found for found in outcomes[name] if isinstance(found, dict)]
    assert len(updates) == 2, outcomes[name]
    check_same(updates, outcomes["apart" if name.startswith("apart") else "plain"][1:])


@pytest.mark.parametrize(("name", "alike"), [("loaded", "plain"), ("apart-loaded", "apart")])
def test_a_checkpoint_of_two_stages_or_of_cut_heads_goes_on_in_one(
    outcomes: dict[str, list[Any]], name: str, alike: str
) -> None:
    check_same(outcomes[name][1:], outcomes[alike][2:])


@pytest.mark.parametrize("name", ["lora", "apart-lora"])
def test_adapters_of_projections_around_a_state_have_the_planned_bytes_and_learn(
    outcomes: dict[str, list[Any]], name: str
) -> None:
    planned, first, second = outcomes[name]
    assert planned == {}
    assert first["metrics"]["train/grad_norm"] > 0
    assert second["metrics"]["train/kl_loss"] > 0
