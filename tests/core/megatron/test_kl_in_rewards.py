"""A KL in the rewards, and a reference that follows the policy: by the formula, in every layout, resumed, parked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.rank_main import make_samples
from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

COEF, GAMMA = 0.1, 0.95
IN_REWARD = {
    "advantage_estimator": "reinforce_plus_plus",
    "advantage_options": {"gamma": GAMMA},
    "kl_coef": COEF,
    "kl_loss_coef": 0.0,
    "ref_update_interval": 2,
}
PPO = {**IN_REWARD, "advantage_estimator": "gae"}
IN_LOSS = {"kl_loss_coef": 0.1, "ref_update_interval": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "one optimiser step": (1, {"train": {"num_steps_per_rollout": 1, "global_batch_size": 12}}),
    "bf16": (1, {"model": {"dtype": "bfloat16"}}),
    "distopt": (1, {"train": {"use_distributed_optimizer": True}}),
    "dp2": (2, {}),
    "tp2": (2, {"placement": {"tensor_parallel": 2}}),
    "pp2": (2, {"placement": {"pipeline_parallel": 2}}),
}
KINDS = {"in reward": IN_REWARD, "ppo": PPO, "in loss": IN_LOSS}
SEEDS = range(4)
CASES = [*((kind, "one") for kind in KINDS), *(("in reward", name) for name in LAYOUTS if name != "one")]
AGE_1 = 3  # updates before the save: the reference has followed once, and one step is counted towards the next time


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Updates, each after the log-probs of its samples; saved after AGE_1 of them, and taken up by a new process."""
    folder, found = tmp_path_factory.mktemp("kl"), dict[str, list[Any]]()
    model = str(tiny_model("qwen3-tied", folder / "model"))
    updates = [action for seed in SEEDS for action in (["log_probs", seed], ["update", seed])]
    for phase in ("write", "read"):
        for size in (1, 2):
            cases = {}
            for kind, name in CASES:
                ranks, config = LAYOUTS[name]
                if ranks != size:
                    continue
                save = ["save_beside" if phase == "write" else "load", str(folder / f"{kind} {name}".replace(" ", "_"))]
                before = updates[: 2 * AGE_1] if phase == "write" else []
                actions = [*before, save, *updates[2 * AGE_1 :]]
                cases[f"{kind}/{name}"] = {"model": model, "config": {**config, "algorithm": KINDS[kind]}} | {
                    "actions": actions
                }
            if size == 1 and phase == "write":
                actions = [one for action in updates for one in (action, "park")]
                cases["parked"] = {"model": model, "config": {"algorithm": IN_REWARD}, "actions": actions}
            got = run_ranks(folder / f"{phase}{size}", size, cases, fresh=phase == "read")
            found |= {f"{phase} {name}": outcome for name, outcome in got.items()}
    return found


def updates_of(outcome: list[Any]) -> list[dict[str, Any]]:
    return [one for one in outcome if isinstance(one, dict)]


@pytest.mark.parametrize("name", ["one", "one optimiser step"])
def test_advantages_are_those_of_the_formula(outcomes: dict[str, list[Any]], name: str) -> None:
    for seed, update in zip(SEEDS, updates_of(outcomes[f"write in reward/{name}"]), strict=True):
        samples, returns, kept = make_samples(seed), [], []
        for sample, old, ref in zip(samples, update["logprobs"], update["logprobs_ref"], strict=True):
            mask = np.array(sample.loss_mask, dtype=bool)
            r = np.where(mask, -COEF * (np.array(old) - np.array(ref)), 0.0)
            r[mask.nonzero()[0][-1:]] += sample.reward
            returns.append([sum(GAMMA ** (s - t) * r[s] for s in range(t, len(r))) for t in range(len(r))])
            kept.append(mask)
        counted = np.concatenate(returns)[np.concatenate(kept)]
        wanted = (counted - counted.mean()) / counted.std()
        assert np.concatenate(update["advantages"])[np.concatenate(kept)] == pytest.approx(wanted, abs=2e-6)


def test_the_reference_is_the_policy_every_second_step(outcomes: dict[str, list[Any]]) -> None:
    for kind in KINDS:
        before = [one for one in outcomes[f"write {kind}/one"] if isinstance(one, list)]
        updates = updates_of(outcomes[f"write {kind}/one"])
        equal = [update["logprobs_ref"] == own for own, update in zip(before, updates, strict=True)]
        assert equal == [True, False, True, False], kind


def test_the_metric_is_0_where_they_are_one(outcomes: dict[str, list[Any]]) -> None:
    found = [one["metrics"]["train/kl_in_reward"] for one in updates_of(outcomes["write ppo/one"])]
    assert found[0] == found[2] == 0
    assert found[1] != 0
    assert found[3] != 0
    assert "train/explained_variance" in updates_of(outcomes["write ppo/one"])[0]["metrics"]


@pytest.mark.parametrize("name", ["dp2", "tp2", "pp2", "distopt"])
def test_every_layout_gives_the_same(outcomes: dict[str, list[Any]], name: str) -> None:
    ours, plain = (updates_of(outcomes[f"write in reward/{one}"]) for one in (name, "one"))
    for one, other in zip(ours, plain, strict=True):
        for kind in ("advantages", "logprobs_ref"):
            for a, b in zip(one[kind], other[kind], strict=True):
                assert a == pytest.approx(b, abs=1e-4), kind
        for metric in ("train/kl_in_reward", "train/loss", "train/grad_norm"):
            assert one["metrics"][metric] == pytest.approx(other["metrics"][metric], rel=1e-3, abs=1e-5), metric


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}, {name}" for kind, name in CASES])
def test_a_resumed_run_is_the_same_bit_for_bit(outcomes: dict[str, list[Any]], kind: str, name: str) -> None:
    wrote, read = outcomes[f"write {kind}/{name}"], outcomes[f"read {kind}/{name}"]
    assert len(read) == 3, read
    assert read[1:] == wrote[-2:]


def test_parking_changes_no_bit(outcomes: dict[str, list[Any]]) -> None:
    assert updates_of(outcomes["write parked"]) == updates_of(outcomes["write in reward/one"])
