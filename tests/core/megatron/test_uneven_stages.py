"""Pipeline stages of different lengths: the same updates as on one rank, and checkpoints that fit every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelcfg
from core.megatron.state.stored import StoredModel
from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, tiny_model, tiny_models

LORA = {"train": {"lora": {"rank": 4, "alpha": 8}}}
SHARED = {"train": {"use_distributed_optimizer": True}}
BF16 = {"model": {"dtype": "bfloat16"}}
PPO = {"algorithm": {"advantage_estimator": "gae"}}
BLOCKS = {"train": {"recompute": "full", "recompute_layers": 2}}
DENSE_FIRST = "glm4_moe"
KINDS = ("llama", "llama-tied", EXPERTS, DENSE_FIRST)
UPDATES = [["update", seed] for seed in (0, 1, 2)]


def stages(number: int, **ends: int) -> dict[str, Any]:
    keys = {f"pipeline_{end}_layers": count for end, count in ends.items()}
    return {"placement": {"trainers_per_node": number, "pipeline_parallel": number, **keys}}


# of 3 layers over two ranks, and of 4 over three
SPLITS = {"2+1": stages(2, first=2), "1+2": stages(2, last=2), "1+2, both said": stages(2, first=1, last=2)}
THREE = {"1+1+2": stages(3, last=2), "2+1+1": stages(3, first=2), "1+2+1": stages(3, first=1, last=1)}
WITH = {"shared": SHARED, "recompute": BLOCKS, "lora": LORA}
PLANNED = {"bf16": BF16, "bf16-shared": {**BF16, **SHARED}, "bf16-lora": {**BF16, **LORA}, "ppo": PPO}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uneven")


def writes(folder: Path, name: str) -> list[Any]:
    return [["update", 0], ["save", str(folder / name)], ["save_hf", str(folder / f"{name}-hf")], *UPDATES[1:]]


def reads(folder: Path, source: str, name: str) -> list[Any]:
    return [["load", str(folder / source)], ["save_hf", str(folder / f"{name}-hf")], *UPDATES[1:]]


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Any]]:
    models = tiny_models(KINDS, folder, num_hidden_layers=3)
    four = {"model": str(tiny_model("llama", folder / "four", num_hidden_layers=4))}

    def case(kind: str, actions: list[Any], *configs: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for config in configs:
            merged |= config
        return {"model": models[kind], "config": merged, "actions": actions}

    one = {kind: case(kind, writes(folder, f"{kind} one")) for kind in KINDS}
    one |= {f"llama {name}": case("llama", UPDATES, config) for name, config in WITH.items()}
    one["four"] = {**four, "actions": UPDATES}
    two = {
        f"{kind} {name}": case(kind, writes(folder, f"{kind} {name}"), config)
        for kind in KINDS
        for name, config in SPLITS.items()
    }
    two |= {f"llama 2+1 {name}": case("llama", UPDATES, SPLITS["2+1"], config) for name, config in WITH.items()}
    two |= {
        f"plan {kind} {split} {name}": case(kind, ["off_plan"], SPLITS[split], config)
        for kind in KINDS
        for split in ("2+1", "1+2")
        for name, config in PLANNED.items()
        if not (kind == DENSE_FIRST and "lora" in name)
    }
    three = {f"four {name}": {**four, "config": config, "actions": UPDATES} for name, config in THREE.items()}
    found = run_ranks(folder / "ranks1", 1, one) | run_ranks(folder / "ranks2", 2, two)
    found |= run_ranks(folder / "ranks3", 3, three)
    again = {f"{kind} 2+1 as one": case(kind, reads(folder, f"{kind} 2+1", f"{kind} read")) for kind in KINDS}
    found |= run_ranks(folder / "again1", 1, again, fresh=True)
    moved = {
        f"{kind} {source} as {name}": case(
            kind, reads(folder, f"{kind} {source}", f"{kind} {source} {name}"), SPLITS[name]
        )
        for kind in KINDS
        for source, name in (("one", "1+2"), ("2+1", "1+2"), ("2+1", "2+1"))
    }
    return found | run_ranks(folder / "again2", 2, moved, fresh=True)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], kind: str, split: str) -> None:
    found = outcomes[f"{kind} {split}"]
    assert len(found) == 5, found
    check_same([found[0], *found[3:]], [outcomes[kind][0], *outcomes[kind][3:]])


@pytest.mark.parametrize("name", WITH)
def test_same_updates_in_other_settings(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"llama 2+1 {name}"]) == 3, outcomes[f"llama 2+1 {name}"]
    check_same(outcomes[f"llama 2+1 {name}"], outcomes[f"llama {name}"])


@pytest.mark.parametrize("split", THREE)
def test_same_updates_over_three_stages(outcomes: dict[str, list[Any]], split: str) -> None:
    assert len(outcomes[f"four {split}"]) == 3, outcomes[f"four {split}"]
    check_same(outcomes[f"four {split}"], outcomes["four"])


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("split", ["2+1", "1+2"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_has_the_planned_bytes(outcomes: dict[str, list[Any]], kind: str, split: str, name: str) -> None:
    if kind != DENSE_FIRST or "lora" not in name:
        assert outcomes[f"plan {kind} {split} {name}"] == [{}]


def same_bits(one: Path, other: Path) -> bool:
    found, wanted = (load_file(path / "model.safetensors") for path in (one, other))
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize(
    ("source", "reader"),
    [("2+1", "read"), ("2+1", "2+1 1+2"), ("one", "one 1+2")],
    ids=["uneven as one", "uneven as uneven", "one as uneven"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_checkpoint_are_the_same_bits(folder: Path, kind: str, source: str, reader: str) -> None:
    assert same_bits(folder / f"{kind} {reader}-hf", folder / f"{kind} {source}-hf")


@pytest.mark.parametrize("reader", ["2+1 as one", "2+1 as 1+2", "one as 1+2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_another_layout_goes_on_alike(outcomes: dict[str, list[Any]], kind: str, reader: str) -> None:
    assert len(outcomes[f"{kind} {reader}"]) == 4, outcomes[f"{kind} {reader}"]
    check_same(outcomes[f"{kind} {reader}"][2:], outcomes[kind][3:])


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_is_the_same_bit_for_bit(outcomes: dict[str, list[Any]], kind: str) -> None:
    assert outcomes[f"{kind} 2+1 as 2+1"][2:] == outcomes[f"{kind} 2+1"][3:]


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_checkpoint_has_every_weight(folder: Path, kind: str) -> None:
    shape = modelcfg.from_hf(json.loads((folder / kind / "config.json").read_text()))
    exported, sent = (
        dict(StoredModel(folder / f"{kind} 2+1", shape).tensors()),
        load_file(folder / f"{kind} 2+1-hf" / "model.safetensors"),
    )
    assert exported.keys() == sent.keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in sent.items())
