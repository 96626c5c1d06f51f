"""Frozen parameters of real trainers: they stay, and what is trained learns as it does where everything is."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, SINKS, STATEFUL, tiny_models

TIED, BIASED, LATENT = "qwen3-tied", "qwen2", "deepseek_v3"
BF16, SHARED = {"model": {"dtype": "bfloat16"}}, {"use_distributed_optimizer": True}
TWO = {"trainers_per_node": 2}
TP2 = {**TWO, "tensor_parallel": 2}
CUT_EXPERTS = {**TP2, "sequence_parallel": True, "expert_tensor_parallel": 2}
CRITIC = {"algorithm": {"advantage_estimator": "gae", "kl_loss_coef": 0.0}}
FOLLOWING = {"algorithm": {"ref_update_interval": 1, "kl_loss_coef": 0.1}}
LAST = {"freeze": ["embed_tokens", r"layers\.0\."]}  # and with it the output layer, which is the embedding
OF_LAYERS = {"only": ["o_proj", "norm"]}
EXPERTS_ALONE, NO_EXPERTS = {"only": [r"mlp\.experts"]}, {"freeze": [r"mlp\.gate", "down_proj"]}
# kind of the model, what is trained
CHOICES: dict[str, tuple[str, dict[str, Any]]] = {
    "last": (TIED, LAST),
    "of layers": (TIED, OF_LAYERS),
    "biases": (BIASED, {"only": ["bias"]}),
    "experts": (EXPERTS, EXPERTS_ALONE),
    "no experts": (EXPERTS, NO_EXPERTS),
    "latent": (LATENT, {"freeze": ["shared_experts", "kv_b_proj", r"layers\.1\."]}),
    "sinks": (SINKS, {"only": ["sinks", "experts.gate_up_proj_bias", "router.bias"]}),
    "states": (STATEFUL, {"only": ["linear_attn", r"layers\.1\."]}),
}
# choice, ranks, run file: one optimiser step, no update
GRADIENTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"{name} plain": (name, 1, {}) for name in CHOICES},
    "last recompute": ("last", 1, {"train": {"recompute": "full"}}),
    "last selective": ("last", 1, {"train": {"recompute": "selective"}}),
    "of layers pp2": ("of layers", 2, {"placement": {**TWO, "pipeline_parallel": 2}}),
    "of layers tp2": ("of layers", 2, {"placement": TP2}),
    "last dp2": ("last", 2, {"placement": TWO}),
    "biases tp2": ("biases", 2, {"placement": TP2}),
    "biases sp2": ("biases", 2, {"placement": {**TP2, "sequence_parallel": True}}),
    "experts tp2-etp2": ("experts", 2, {"placement": CUT_EXPERTS}),
    "no experts tp2-etp2": ("no experts", 2, {"placement": CUT_EXPERTS}),
    "experts ep2": ("experts", 2, {"placement": {**TWO, "expert_parallel": 2}}),
    "no experts ep2": ("no experts", 2, {"placement": {**TWO, "expert_parallel": 2}}),
}
# choice, ranks, run file: two updates
PLANS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "bf16": ("last", 1, BF16),
    "bf16-streamed": ("last", 1, {**BF16, "train": {"optimizer_state": "streamed"}}),
    "bf16-shared": ("last", 1, {**BF16, "train": SHARED}),
    "bf16-critic": ("last", 1, {**BF16, **CRITIC}),
    "bf16-experts": ("experts", 1, BF16),
    "bf16-latent": ("latent", 1, BF16),
    "bf16-states": ("states", 1, BF16),
    "bf16-dp2-shared": ("biases", 2, {**BF16, "train": SHARED, "placement": TWO}),
    "bf16-pp2-shared": ("of layers", 2, {**BF16, "train": SHARED, "placement": {**TWO, "pipeline_parallel": 2}}),
    "bf16-tp2": ("last", 2, {**BF16, "placement": TP2}),
    "bf16-experts-ep2-shared": ("experts", 2, {**BF16, "train": SHARED, "placement": {**TWO, "expert_parallel": 2}}),
    "bf16-no-experts-ep2": ("no experts", 2, {**BF16, "placement": {**TWO, "expert_parallel": 2}}),
}
UPDATES = [["update", 0], ["update", 1]]
# choice, ranks, run file: trained, saved, and taken up again
SAVED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "one": ("last", 1, FOLLOWING),
    "tp2-dp2-shared": ("last", 4, {**FOLLOWING, "train": SHARED, "placement": {**TP2, "trainers_per_node": 4}}),
    "experts-one": ("experts", 1, {}),
    "experts-ep2": ("experts", 2, {"placement": {**TWO, "expert_parallel": 2}}),
    "norms-one": ("of layers", 1, {}),
    "norms-pp2-shared": ("of layers", 2, {"train": SHARED, "placement": {**TWO, "pipeline_parallel": 2}}),
}
AGAIN = {"one": "one", "tp2-dp2-shared": "one", "experts-ep2": "experts-one", "norms-pp2-shared": "norms-one"}


def with_choice(choice: dict[str, Any], config: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {**config, "train": {**config.get("train", {}), **train, **choice}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(dict.fromkeys(kind for kind, _ in CHOICES.values()), folder)
    found = dict[str, list[Any]]()

    def case(name: str, config: dict[str, Any], actions: list[Any], **train: Any) -> dict[str, Any]:
        kind, choice = CHOICES[name]
        return {"model": models[kind], "config": with_choice(choice, config, **train), "actions": actions}

    def gradients(name: str) -> list[Any]:
        return [["learn_from", 1, str(folder / f"{name} gradients"), False]]

    whole = {
        f"{kind} whole": {"model": model, "config": with_choice({}, {}, num_steps_per_rollout=1), "actions": actions}
        for kind, model in models.items()
        for actions in (gradients(kind),)
    }
    whole["critic whole"] = {"model": models[TIED], "config": {**BF16, **CRITIC}, "actions": UPDATES}
    for size in (1, 2, 4):
        cases = whole if size == 1 else {}
        cases |= {
            name: case(choice, config, gradients(name), num_steps_per_rollout=1)
            for name, (choice, ranks, config) in GRADIENTS.items()
            if ranks == size
        }
        cases |= {
            f"plan {name}": case(choice, config, ["off_plan", ["update", 0], "park", ["update", 1]])
            for name, (choice, ranks, config) in PLANS.items()
            if ranks == size
        }
        cases |= {
            f"{name} saved": case(
                choice,
                config,
                [*UPDATES, ["save", str(folder / name)], ["save_hf", str(folder / f"{name}-hf")], ["update", 2]],
            )
            for name, (choice, ranks, config) in SAVED.items()
            if ranks == size
        }
        found |= run_ranks(folder / f"ranks{size}", size, cases)
    again = {
        f"{name} again": case(
            SAVED[name][0],
            SAVED[into][2],
            [
                ["load", str(folder / name)],
                ["save_hf", str(folder / f"{name}-again")],
                ["export_beside", str(folder / name), str(folder / f"{name}-export")],
                ["update", 2],
            ],
        )
        for name, into in AGAIN.items()
    }
    return found | run_ranks(folder / "again", 1, again, fresh=True)


def trained(kind: str, choice: dict[str, Any], names: list[str]) -> set[str]:
    """What a choice trains, by the simplest reading of it."""
    expressions = choice.get("only") or choice["freeze"]
    found = {name for name in names if any(re.search(one, name) for one in expressions)}
    return found if choice.get("only") else set(names) - found


def norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(one.double().square().sum()) for one in tensors))


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_training_everything(outcomes: dict[str, list[Any]], folder: Path, name: str) -> None:
    assert isinstance(outcomes[name][0], dict), outcomes[name]
    kind, choice = CHOICES[GRADIENTS[name][0]]
    found, whole = load_file(folder / f"{name} gradients"), load_file(folder / f"{kind} gradients")
    chosen = trained(kind, choice, list(whole))
    assert chosen
    assert chosen != set(whole)
    for frozen in set(whole) - chosen:
        assert not found[frozen].any(), frozen
    size = norm([whole[one] for one in chosen])
    assert size > 1e-4
    assert norm([found[one] - whole[one] for one in chosen]) < 1e-5 * size
    assert outcomes[name][0]["metrics"]["train/grad_norm"] == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("name", PLANS)
def test_every_part_has_the_planned_bytes(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"plan {name}"]) == 4, outcomes[f"plan {name}"]
    assert outcomes[f"plan {name}"][0] == {}


@pytest.mark.parametrize("name", PLANS)
def test_all_parts_leave_and_come_back(outcomes: dict[str, list[Any]], name: str) -> None:
    left, still_there = outcomes[f"plan {name}"][2]
    assert {"base", "gradients", "parameters"} <= set(left)
    assert still_there == 0


def test_a_state_that_streams_makes_the_same_bits(outcomes: dict[str, list[Any]]) -> None:
    streamed, resident = outcomes["plan bf16-streamed"], outcomes["plan bf16"]
    assert (streamed[1], streamed[3]) == (resident[1], resident[3])


def test_a_critic_learns_all_of_itself(outcomes: dict[str, list[Any]]) -> None:
    found, wanted = (outcomes[name][at]["metrics"] for name, at in (("plan bf16-critic", 1), ("critic whole", 0)))
    assert found["train/critic_grad_norm"] == wanted["train/critic_grad_norm"] > 0
    assert found["train/grad_norm"] < wanted["train/grad_norm"]


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("name", SAVED)
def test_frozen_parameters_stay_bit_for_bit(folder: Path, name: str) -> None:
    kind, choice = CHOICES[SAVED[name][0]]
    before, after = (load_file(folder / one / "model.safetensors") for one in (kind, f"{name}-hf"))
    changed = {one for one in before if not torch.equal(before[one], after[one])}
    assert before.keys() == after.keys()
    assert changed == trained(kind, choice, list(before))


@pytest.mark.parametrize("name", AGAIN)
def test_every_layout_learns_alike(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"{name} saved"]) == 5, outcomes[f"{name} saved"]
    check_same(outcomes[f"{name} saved"][:2], outcomes[f"{AGAIN[name]} saved"][:2])


def test_a_resumed_run_is_the_same_bit_for_bit(outcomes: dict[str, list[Any]]) -> None:
    assert len(outcomes["one again"]) == 4, outcomes["one again"]
    assert outcomes["one again"][-1] == outcomes["one saved"][-1]


@pytest.mark.parametrize("name", [name for name in AGAIN if name != "one"])
def test_a_checkpoint_of_another_layout_goes_on_alike(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"{name} again"]) == 4, outcomes[f"{name} again"]
    check_same(outcomes[f"{name} again"][-1:], outcomes[f"{AGAIN[name]} saved"][-1:])


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("name", AGAIN)
@pytest.mark.parametrize("way", ["again", "export"])
def test_a_checkpoint_holds_the_whole_model(folder: Path, name: str, way: str) -> None:
    """Whoever reads it: a trainer that goes on, and an export without one."""
    files = [folder / one / "model.safetensors" for one in (f"{name}-{way}", f"{name}-hf")]
    assert files[0].read_bytes() == files[1].read_bytes()
