"""Samples of older weights: ratio and clipping count from the engine's log-probs, not from the trainer's own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

SEED, SHIFT = 0, -0.7
KINDS = {"on": (0.0, True), "off": (0.0, False), "older": (SHIFT, False), "as new": (SHIFT, True)}  # on-policy or not
STEPS = (1, 2)  # of the optimiser, per update


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("off_policy")
    model = str(tiny_model("llama", folder / "model"))
    cases = {}
    for steps in STEPS:
        config = {"train": {"num_steps_per_rollout": steps, "lr": 1e-2}, "algorithm": {"kl_loss_coef": 0.0}}
        for name, (shift, on_policy) in KINDS.items():
            actions = [["update_batch", SEED, shift, on_policy]]
            cases[f"{name} {steps}"] = {"model": model, "config": config, "actions": actions}
        asked = {**config, "algorithm": {"kl_loss_coef": 0.0, "old_logprobs": "engine"}}
        actions = [["update_batch", SEED, SHIFT, True]]
        cases[f"engine's {steps}"] = {"model": model, "config": asked, "actions": actions}
    correction = {"importance": "tis", "importance_high": 3.0}
    cases["corrected"] = {
        "model": model,
        "config": {"train": {"lr": 1e-2}, "algorithm": {"kl_loss_coef": 0.0, **correction}},
        "actions": [["update_batch", SEED, SHIFT, True]],
    }
    return {name: found for name, (found,) in run_ranks(folder / "ranks", 1, cases).items()}


@pytest.mark.parametrize("steps", STEPS)
def test_where_no_update_lies_between_both_learn_the_same(updates: dict[str, Any], steps: int) -> None:
    """The engine's log-probs are then the trainer's own, recomputed or not."""
    on, off = updates[f"on {steps}"], updates[f"off {steps}"]
    for mine, other in zip(on["after"], off["after"], strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
    assert on["metrics"] == pytest.approx(off["metrics"], rel=1e-3, abs=1e-5)


def test_samples_of_older_weights_are_told_from_new_ones(updates: dict[str, Any]) -> None:
    """By one optimiser step on-policy samples have ratio 1, whatever the engine says; older ones exp(-shift)."""
    new, older = updates["as new 1"]["metrics"], updates["older 1"]["metrics"]
    assert new["train/ppo_kl"] == pytest.approx(0.0, abs=1e-5)
    assert new["train/pg_clipfrac"] == 0.0
    assert older["train/ppo_kl"] == pytest.approx(SHIFT, abs=1e-4)
    assert older["train/pg_clipfrac"] > 0.1
    assert updates["as new 1"]["after"] != updates["older 1"]["after"]


def test_tokens_count_for_how_much_likelier_they_are_to_the_trainer_than_to_the_engine(updates: dict[str, Any]) -> None:
    found, plain = updates["corrected"]["metrics"], updates["as new 2"]["metrics"]
    assert found["train/tis"] == pytest.approx(math.exp(-SHIFT), rel=1e-4)
    assert found["train/tis_clipfrac"] == 0.0
    assert found["train/tis_ess"] == pytest.approx(1.0, rel=1e-4)
    assert found["train/engine_kl"] == pytest.approx(math.exp(-SHIFT) - 1 + SHIFT, rel=1e-3)
    assert not any(name.startswith("train/tis") for name in plain)


@pytest.mark.parametrize("steps", STEPS)
def test_the_engines_log_probs_are_the_old_ones_where_the_run_file_asks(updates: dict[str, Any], steps: int) -> None:
    """As for samples of older weights, to the bit."""
    assert updates[f"engine's {steps}"] == updates[f"older {steps}"]


@pytest.mark.parametrize("steps", STEPS)
def test_the_old_log_probs_of_the_record_are_those_the_loss_used(updates: dict[str, Any], steps: int) -> None:
    older = updates[f"older {steps}"]
    for old, engine in zip(older["old"], older["engine"], strict=True):
        assert old == pytest.approx(engine, abs=1e-6)
