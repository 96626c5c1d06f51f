"""Routing replay in updates: the experts are those of the trainer's first pass, or the engine's, in every layout."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, tiny_model

REPLAY = {"algorithm": {"routing_replay": "trainer"}}
IN_REWARD = {"routing_replay": "trainer", "advantage_estimator": "reinforce_plus_plus", "kl_coef": 0.1}
ONE: dict[str, Any] = {
    "plain": REPLAY,
    "recompute": {**REPLAY, "train": {"recompute": "full"}},
    "small rows, no sharing": {**REPLAY, "train": {"max_tokens_per_micro_batch": 40, "share_prompts": False}},
    "engine's log-probs": {"algorithm": {"routing_replay": "trainer", "old_logprobs": "engine"}},
    "old log-probs from before": {"algorithm": {**IN_REWARD, "kl_loss_coef": 0.0}},
}
TWO: dict[str, Any] = {
    "dp2": REPLAY,
    "pp2": {**REPLAY, "placement": {"pipeline_parallel": 2}},
    "ep2": {**REPLAY, "placement": {"expert_parallel": 2}},
}
OTHER_SAMPLES = ("engine's log-probs", "old log-probs from before")  # which learn something else
ACTIONS = [["replayed", 0], ["replayed", 1]]
ENGINE: dict[str, Any] = {"algorithm": {"routing_replay": "engine"}}
ENGINES: dict[int, dict[str, Any]] = {
    1: {
        "engine": ENGINE,
        "engine, recompute": {**ENGINE, "train": {"recompute": "full"}},
        "engine, no sharing": {**ENGINE, "train": {"max_tokens_per_micro_batch": 40, "share_prompts": False}},
    },
    2: {
        "engine, pp2": {**ENGINE, "placement": {"pipeline_parallel": 2}},
        "engine, ep2": {**ENGINE, "placement": {"expert_parallel": 2}},
    },
}
CHANCE = 3 / 8  # 3 of 8 experts
OF_ENGINE = [name for layouts in ENGINES.values() for name in layouts]
FROM_ENGINE = [["replayed_from_engine", 0], ["replayed_from_engine", 1]]
CASES = [*ONE, *TWO, "a bias, a dense layer", "a bias, a dense layer, pp2"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("replay")
    model, other = str(tiny_model(EXPERTS, folder / "model")), str(tiny_model("glm4_moe", folder / "other"))
    result: dict[str, list[Any]] = {}
    for size, layouts in ((1, ONE), (2, TWO)):
        cases = {name: {"model": model, "config": config, "actions": ACTIONS} for name, config in layouts.items()}
        cases |= {
            name: {"model": model, "config": config, "actions": FROM_ENGINE} for name, config in ENGINES[size].items()
        }
        name = "a bias, a dense layer" + (", pp2" if size == 2 else "")
        cases[name] = {"model": other, "config": TWO["pp2"] if size == 2 else REPLAY, "actions": ACTIONS}
        if size == 1:
            cases["none"] = {"model": model, "actions": [["update", 0], ["update", 1]]}
        else:  # one sample per optimiser step: some ranks have none
            cases["lonely"] = {"model": model, "config": TWO["ep2"], "actions": [["replayed", 0, 1]]}
        result |= run_ranks(folder / str(size), size, cases)
    return result


@pytest.mark.parametrize("name", [*CASES, "lonely"])
def test_experts_are_those_of_the_first_pass(outcomes: dict[str, list[Any]], name: str) -> None:
    for update in outcomes[name]:
        assert update["same"] == [True, True]
        assert update["own"][0], "the weights are still those of the first pass"
        metrics = update["metrics"]
        assert metrics["train/routing_agreement_first"] == 1.0
        assert (metrics["train/routing_agreement"] == 1.0) == all(update["own"])
    if name != "lonely":  # whose few tokens may be routed alike
        assert not all(update["own"][1] for update in outcomes[name]), "else the test would show nothing"


@pytest.mark.parametrize("name", [name for name in (*ONE, *TWO) if name not in ("plain", *OTHER_SAMPLES)])
def test_every_layout_gives_the_same(outcomes: dict[str, list[Any]], name: str) -> None:
    check_same(outcomes[name], outcomes["plain"])


def test_pipeline_stages_give_the_same_behind_a_dense_layer(outcomes: dict[str, list[Any]]) -> None:
    check_same(outcomes["a bias, a dense layer, pp2"], outcomes["a bias, a dense layer"])


@pytest.mark.parametrize("name", OF_ENGINE)
def test_experts_are_those_of_the_engine(outcomes: dict[str, list[Any]], name: str) -> None:
    """In all passes, the first among them: what the routers would choose is other than these random experts."""
    for update in outcomes[name]:
        assert update["same"] == [True, True]
        assert update["own"] == [False, False]
        agreement = update["metrics"]["train/routing_agreement_first"]
        assert abs(agreement - CHANCE) < 0.2, "random experts are a router's own by chance"


@pytest.mark.parametrize("name", [name for name in OF_ENGINE if name not in ("engine", "engine, no sharing")])
def test_every_layout_gives_the_same_with_the_engines(outcomes: dict[str, list[Any]], name: str) -> None:
    check_same(outcomes[name], outcomes["engine"])


def test_old_log_probs_are_those_of_the_engines_experts(outcomes: dict[str, list[Any]]) -> None:
    """Which differ from those of the routers' own."""
    engine, none = outcomes["engine"][0], outcomes["none"][0]
    gaps = [
        abs(a - b) for x, y in zip(engine["logprobs"], none["logprobs"], strict=True) for a, b in zip(x, y, strict=True)
    ]
    assert max(gap for gap in gaps if gap == gap) > 1e-3


def test_nothing_is_said_of_agreement_where_nothing_is_replayed(outcomes: dict[str, list[Any]]) -> None:
    assert not [name for name in outcomes["none"][0]["metrics"] if "agreement" in name]


def test_updates_differ_from_those_without_it(outcomes: dict[str, list[Any]]) -> None:
    one, other = (outcomes[name][0]["metrics"]["train/grad_norm"] for name in ("plain", "none"))
    assert abs(one - other) > 1e-4
