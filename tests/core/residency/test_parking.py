"""A trainer that is parked between its updates goes on bit for bit as one that never was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import EXPERTS, tiny_model

BF16 = {"model": {"dtype": "bfloat16"}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
EP2 = {"placement": {"expert_parallel": 2}}
ETP2 = {"placement": {"tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 2}}
ONE: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": BF16,
    "fp32-distopt": DISTRIBUTED,
    "bf16-distopt": {**BF16, **DISTRIBUTED},
    "bf16-recompute": {**BF16, "train": {"recompute": "full"}},
}
TWO: dict[str, dict[str, Any]] = {
    "bf16-tp2": {**BF16, "placement": {"tensor_parallel": 2}},
    "bf16-pp2": {**BF16, "placement": {"pipeline_parallel": 2}},
    "bf16-dp2-distopt": {**BF16, **DISTRIBUTED},
    "bf16-ep2": {**BF16, **EP2},
    "bf16-ep2-distopt": {**BF16, **EP2, **DISTRIBUTED},
    "bf16-etp2-distopt": {**BF16, **ETP2, **DISTRIBUTED},
}
PLAIN = [["update", 0], ["update", 1], ["buckets", 4000], ["update", 2], "checksums"]
PARKED = [
    *("park", ["update", 0], "park", ["update", 1], "park", ["buckets_alone", 4000], ["update", 2]),
    *("park", "aliases", "checksums"),
]
STAYING = [
    *(["update", 0], ["buckets_alone", 4000, ["masters", "parameters", "moments"]], ["update", 1]),
    *(["buckets_alone", 4000, ["masters", "parameters"]], ["update", 2], "checksums"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("parking")
    dense, experts = (str(tiny_model(kind, folder / kind)) for kind in ("qwen3-tied", EXPERTS))
    result: dict[str, list[Any]] = {}
    for size, layouts in ((1, ONE), (2, TWO)):
        cases: dict[str, dict[str, Any]] = {}
        for name, config in layouts.items():
            model = experts if "ep2" in name or "etp2" in name else dense
            cases[name] = {"model": model, "config": config, "actions": PLAIN}
            cases[f"{name} parked"] = {"model": model, "config": config, "actions": PARKED}
            cases[f"{name} staying"] = {"model": model, "config": config, "actions": STAYING}
            save = str(folder / f"saved-{name}")
            resumed = ["park", ["load", save], "park", ["update", 2], "park", "aliases", "checksums"]
            cases[f"{name} saved"] = {
                **{"model": model, "config": config},
                "actions": [["update", 0], ["update", 1], "park", ["save", save]],
            }
            cases[f"{name} resumed"] = {"model": model, "config": config, "actions": resumed}
        result |= run_ranks(folder / str(size), size, cases)
    return result


@pytest.mark.parametrize("case", [*ONE, *TWO])
def test_parking_changes_nothing(outcomes: dict[str, list[Any]], case: str) -> None:
    plain, parked = outcomes[case], outcomes[f"{case} parked"]
    assert len(parked) == len(PARKED), parked
    assert [parked[i] for i in (1, 3, 5, 6, 9)] == plain


@pytest.mark.parametrize("case", [*ONE, *TWO])
def test_nor_does_parking_a_part_of_it(outcomes: dict[str, list[Any]], case: str) -> None:
    plain, staying = outcomes[case], outcomes[f"{case} staying"]
    assert len(staying) == len(STAYING), staying
    assert [staying[i] for i in (0, 2, 3, 4, 5)] == plain


@pytest.mark.parametrize("case", [*ONE, *TWO])
def test_a_resumed_trainer_parks_as_well(outcomes: dict[str, list[Any]], case: str) -> None:
    resumed = outcomes[f"{case} resumed"]
    assert len(resumed) == 7, resumed
    assert [resumed[3], resumed[6]] == outcomes[case][3:]
    assert resumed[5] is True


@pytest.mark.parametrize("case", [*ONE, *TWO])
def test_views_still_lie_in_the_flat_buffers(outcomes: dict[str, list[Any]], case: str) -> None:
    assert outcomes[f"{case} parked"][8] is True


@pytest.mark.parametrize("case", [*ONE, *TWO])
def test_parked_means_nothing_left(outcomes: dict[str, list[Any]], case: str) -> None:
    held, left = outcomes[f"{case} parked"][0]
    assert left == 0
    wanted = {"parameters", "gradients", "moments", "reference"} | ({"masters"} if "bf16" in case else set())
    assert set(held) == wanted
