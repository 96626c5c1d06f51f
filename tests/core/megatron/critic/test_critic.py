"""A critic beside the policy: the same under every layout, resumed bit for bit, parked, alone at first, as planned."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import EXPERTS, tiny_models

PPO = {"advantage_estimator": "gae", "advantage_options": {"gamma": 0.99, "lambd": 0.95}}
CRITIC = {"lr": 4e-3, "value_clip": 0.3}
TP2, PP2 = {"placement": {"tensor_parallel": 2}}, {"placement": {"pipeline_parallel": 2}}
SP2 = {"placement": {"tensor_parallel": 2, "sequence_parallel": True}}
EP2 = {"placement": {"expert_parallel": 2}}
ETP2 = {"placement": {**SP2["placement"], "expert_tensor_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
BF16 = {"model": {"dtype": "bfloat16"}}
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "plain": {},
        "distopt": DISTRIBUTED,
        "small_rows": {"train": {"max_tokens_per_micro_batch": 40}},
        "unshared": {"train": {"share_prompts": False}},
        "recompute": {"train": {"recompute": "full"}},
    },
    2: {"dp2": {}, "dp2-distopt": DISTRIBUTED, "tp2": TP2, "sp2": SP2, "pp2": PP2, "ep2": EP2, "etp2": ETP2},
}
KINDS = ("llama", "qwen3-tied", EXPERTS)
UPDATES = [["update_critic", seed] for seed in (0, 1, 2)]
WRITERS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "bf16": (1, BF16),
    "bf16-distopt": (1, {**BF16, **DISTRIBUTED}),
    "dp2": (2, {}),
    "dp2-distopt": (2, DISTRIBUTED),
    "tp2": (2, TP2),
    "pp2": (2, PP2),
}


def case(model: str, config: dict[str, Any], actions: list[Any], **critic: Any) -> dict[str, Any]:
    config = {**config, "algorithm": PPO, "critic": {**CRITIC, **critic}}
    return {"model": model, "config": config, "actions": actions}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return tiny_models(KINDS, folder)


@pytest.fixture(scope="module")
def outcomes(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder, found = tmp_path_factory.mktemp("layouts"), dict[str, list[Any]]()
    llama = models["llama"]
    for size, layouts in LAYOUTS.items():
        cases = {
            f"{kind}/{name}": case(model, config, UPDATES)
            for kind, model in models.items()
            for name, config in layouts.items()
            if (name not in ("ep2", "etp2") or kind == EXPERTS) and not (kind == EXPERTS and name in ("tp2", "sp2"))
        }
        if size == 1:
            parked = [UPDATES[0], "park", UPDATES[1], "park", UPDATES[2]]
            cases |= {
                "parked": case(llama, {}, parked),
                "bf16": case(llama, BF16, UPDATES),
                "bf16-parked": case(llama, BF16, parked),
                "alone": case(llama, {}, ["checksums", *([UPDATES[0], "checksums"] * 3)], num_critic_only_steps=2),
                "nan": case(llama, {}, [UPDATES[0], "spoil_critic", UPDATES[1]], num_critic_only_steps=4),
                "learning": case(llama, {}, [["update_critic", 0]] * 8),
                "no critic": {"model": llama, "actions": [["update", 0], ["save", str(folder / "without")]]},
                "none saved": case(llama, {}, [["load", str(folder / "without")]]),
            }
        found |= run_ranks(folder / str(size), size, cases)
    return found


def compared(found: list[dict[str, Any]], wanted: list[dict[str, Any]], tolerance: float) -> None:
    assert len(found) == len(wanted), found
    for one, other in zip(found, wanted, strict=True):
        for name, value in other["metrics"].items():
            if name.startswith("train/") and not name.endswith("_max"):
                assert one["metrics"][name] == pytest.approx(value, rel=10 * tolerance, abs=tolerance), name
        for kind in ("advantages", "values"):
            for ours, theirs in zip(one[kind], other[kind], strict=True):
                assert ours == pytest.approx(theirs, abs=10 * tolerance), kind


@pytest.mark.parametrize("name", [name for layouts in LAYOUTS.values() for name in layouts if name != "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_same(outcomes: dict[str, list[Any]], kind: str, name: str) -> None:
    if f"{kind}/{name}" not in outcomes:
        pytest.skip("a layout of other models")
    compared(outcomes[f"{kind}/{name}"], outcomes[f"{kind}/plain"], 1e-5)


def test_a_fresh_critic_expects_nothing_and_then_something(outcomes: dict[str, list[Any]]) -> None:
    first, second, _ = outcomes["llama/plain"]
    assert first["metrics"]["train/explained_variance"] == 0
    assert any(value for values in second["values"] for value in values)
    for name in ("train/value_loss", "train/critic_grad_norm", "train/critic_lr", "train/value_clipfrac"):
        assert all(name in update["metrics"] for update in outcomes["llama/plain"]), name


def test_the_same_samples_again_are_expected_better(outcomes: dict[str, list[Any]]) -> None:
    updates = outcomes["learning"]
    losses = [update["metrics"]["train/value_loss"] for update in updates]
    assert losses[-1] < 0.5 * losses[0], losses
    assert updates[-1]["metrics"]["train/explained_variance"] > 0.5


@pytest.mark.parametrize("name", ["parked", "bf16-parked"])
def test_parking_changes_no_bit(outcomes: dict[str, list[Any]], name: str) -> None:
    wanted = outcomes["bf16" if name == "bf16-parked" else "llama/plain"]
    first, park, second, again, third = outcomes[name]
    assert [first, second, third] == wanted
    assert "critic" in park[0]
    assert park[1] == again[1] == 0


def test_the_policy_stays_while_the_critic_learns_alone(outcomes: dict[str, list[Any]]) -> None:
    before, *rest = outcomes["alone"]
    updates, sums = rest[::2], rest[1::2]
    assert sums[0] == sums[1] == before
    assert sums[2] != before
    assert [update["metrics"]["train/lr"] > 0 for update in updates] == [False, False, True]
    assert ["train/grad_norm" in update["metrics"] for update in updates] == [False, False, True]
    losses = [update["metrics"]["train/value_loss"] for update in updates]
    assert all(later < earlier for earlier, later in pairwise(losses)), losses


def test_a_gradient_of_the_critic_that_is_not_finite_names_its_key(outcomes: dict[str, list[Any]]) -> None:
    (error,) = outcomes["nan"]
    assert "gradient norm is nan at optimiser step 2" in error
    assert error.rstrip().endswith("or lower critic.lr, of the critic")


def test_a_checkpoint_without_a_critic_is_refused(outcomes: dict[str, list[Any]]) -> None:
    (error,) = outcomes["none saved"]
    assert "without a critic; wanted one with a critic, as gae needs" in error


@pytest.fixture(scope="module")
def resumed(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder, result = tmp_path_factory.mktemp("checkpoints"), dict[str, list[Any]]()
    for phase in ("write", "read"):
        for size in (1, 2):
            cases = {}
            for name, (ranks, config) in WRITERS.items():
                path = str(folder / name)
                first = [UPDATES[0], ["save_beside", path]] if phase == "write" else [["load", path]]
                if ranks == size:
                    cases[name] = case(models["qwen3-tied"], config, [*first, *UPDATES[1:]], num_critic_only_steps=2)
            found = run_ranks(folder / f"{phase}{size}", size, cases, fresh=phase == "read")
            result |= {f"{phase} {name}": outcome for name, outcome in found.items()}
    return result


@pytest.mark.parametrize("name", WRITERS)
def test_a_resumed_run_is_the_same_bit_for_bit(resumed: dict[str, list[Any]], name: str) -> None:
    assert len(resumed[f"write {name}"]) == 4, resumed[f"write {name}"]
    assert resumed[f"read {name}"][1:] == resumed[f"write {name}"][2:]
