"""Rows whose tokens lie on several ranks: the same updates as on one rank, and checkpoints that fit every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, LATENT, POST_NORMS, WHOLE_NORMS, tiny_models

CP2 = {"placement": {"context_parallel": 2}}
TP2_CP2 = {"placement": {"context_parallel": 2, "tensor_parallel": 2}}
SP2_CP2 = {"placement": {"context_parallel": 2, "tensor_parallel": 2, "sequence_parallel": True}}
PP2_CP2 = {"placement": {"context_parallel": 2, "pipeline_parallel": 2}}
CP2_EP2 = {"placement": {"context_parallel": 2, "expert_parallel": 2}}
CP2_EP4 = {"placement": {"context_parallel": 2, "expert_parallel": 4}}
CP4 = {"placement": {"context_parallel": 4}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
# of a row: a loss over whole responses, other rows, a critic, adapters, layers that are made again
SETTINGS = {
    "plain": {},
    "unshared": {"train": {"share_prompts": False}},
    "small rows": {"train": {"max_tokens_per_micro_batch": 40}},
    "gspo": {"algorithm": {"loss": "gspo"}},
    "lora": {"train": {"lora": {"rank": 4, "alpha": 8}}},
    "ppo": {"algorithm": {"advantage_estimator": "gae"}},
}
MODELS = ("llama", "qwen3-tied", POST_NORMS, EXPERTS, WHOLE_NORMS, *LATENT)
# model, layout, and what runs on one rank beside it
TWO = {f"llama cp2 {name}": ("llama", {**CP2, **config}, f"llama {name}") for name, config in SETTINGS.items()}
TWO |= {f"{kind} cp2": (kind, CP2, f"{kind} plain") for kind in MODELS[1:]}
TWO |= {
    "llama cp2 distributed": ("llama", {**CP2, **DISTRIBUTED}, "llama plain"),
    f"{EXPERTS} cp2-ep2": (EXPERTS, CP2_EP2, f"{EXPERTS} plain"),
}
FOUR = {
    "llama tp2-cp2": ("llama", TP2_CP2, "llama plain"),
    "llama sp2-cp2": ("llama", SP2_CP2, "llama plain"),
    "llama sp2-cp2 recompute": ("llama", {**SP2_CP2, "train": {"recompute": "full"}}, "llama plain"),
    "qwen3-tied pp2-cp2": ("qwen3-tied", PP2_CP2, "qwen3-tied plain"),
    "llama dp2-cp2": ("llama", CP2, "llama plain"),
    "llama dp2-cp2 distributed": ("llama", {**CP2, **DISTRIBUTED}, "llama plain"),
    "llama cp4": ("llama", CP4, "llama plain"),
    f"{EXPERTS} cp2-ep2 of 4": (EXPERTS, CP2_EP2, f"{EXPERTS} plain"),
    f"{EXPERTS} cp2-ep4 distributed": (EXPERTS, {**CP2_EP4, **DISTRIBUTED}, f"{EXPERTS} plain"),
}
ACTIONS = [["log_probs", 3], ["update", 0], ["update", 1], ["log_probs", 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("context")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(MODELS, folder)

    def case(kind: str, config: dict[str, Any], actions: list[Any] = ACTIONS) -> dict[str, Any]:
        return {"model": models[kind], "config": config, "actions": actions}

    one = {f"llama {name}": case("llama", config) for name, config in SETTINGS.items()}
    one |= {f"{kind} plain": case(kind, {}) for kind in MODELS}
    saved = {"written by cp2": case("llama", {**CP2, **DISTRIBUTED}, [["update", 0], ["save", str(folder / "cp2")]])}
    alone = {"written by one": case("llama", DISTRIBUTED, [["update", 0], ["save", str(folder / "one")]])}
    found = run_ranks(folder / "1", 1, one | alone)
    found |= run_ranks(folder / "2", 2, {name: case(kind, config) for name, (kind, config, _) in TWO.items()} | saved)
    read = {
        f"{source} read": case("llama", {**CP2, **DISTRIBUTED}, [["load", str(folder / source)], *ACTIONS[2:]])
        for source in ("one", "cp2")
    }
    read_alone = {"cp2 read by one": case("llama", DISTRIBUTED, [["load", str(folder / "cp2")], *ACTIONS[2:]])}
    found |= run_ranks(folder / "2 again", 2, read) | run_ranks(folder / "1 again", 1, read_alone)
    return found | run_ranks(folder / "4", 4, {name: case(kind, config) for name, (kind, config, _) in FOUR.items()})


def check_alike(found: list[Any], wanted: list[Any], num_actions: int) -> None:
    """Losses and gradient norms to 1e-5, and log-probs before and after the updates."""
    assert (len(found), len(wanted)) == (num_actions, num_actions), (found, wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        if isinstance(theirs, dict):
            check_same([ours], [theirs])
        elif theirs is not None:
            for a, b in zip(ours, theirs, strict=True):
                assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("name", [*TWO, *FOUR])
def test_same_losses_gradients_and_log_probs(outcomes: dict[str, list[Any]], name: str) -> None:
    check_alike(outcomes[name], outcomes[(TWO | FOUR)[name][2]], len(ACTIONS))


@pytest.mark.parametrize("name", ["one read", "cp2 read", "cp2 read by one"])
def test_a_checkpoint_of_another_layout_goes_on_alike(outcomes: dict[str, list[Any]], name: str) -> None:
    check_alike(outcomes[name][1:], outcomes["llama plain"][2:], 2)
