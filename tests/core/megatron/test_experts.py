"""Models with experts: the same losses, gradients, weights and checkpoints however the experts are shared out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.same_updates import check_same
from tests.support.tiny_models import EXPERTS, tiny_model

EP2 = {"placement": {"expert_parallel": 2}}
EP4 = {"placement": {"expert_parallel": 4}}
PP2_EP2 = {"placement": {"pipeline_parallel": 2, "expert_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
RECOMPUTE = {"train": {"recompute": "full"}}
ALONE = {
    "plain": {},
    "distopt": DISTRIBUTED,
    "recompute": RECOMPUTE,
    "small_rows": {"train": {"max_tokens_per_micro_batch": 40}},
}
TWO = {
    "dp2": {},
    "pp2": {"placement": {"pipeline_parallel": 2}},
    "ep2": EP2,
    "ep2-distopt": {**EP2, **DISTRIBUTED},
    "ep2-recompute": {**EP2, **RECOMPUTE},
}
FOUR = {"ep4": EP4, "ep2-dp2": EP2, "ep2-dp2-distopt": {**EP2, **DISTRIBUTED}, "pp2-ep2": PP2_EP2}
ACTIONS = [["update", 0], ["update", 1], ["update", 2], ["buckets", 20000]]
WRITERS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "one-distopt": (1, DISTRIBUTED),
    "ep2": (2, EP2),
    "ep2-distopt": (2, {**EP2, **DISTRIBUTED}),
}
# checkpoint, number of ranks and config that load it: with expert parallelism there are two optimisers, else one
READERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ep2 as ep2": ("ep2", 2, EP2),
    "ep2-distopt as ep2-distopt": ("ep2-distopt", 2, {**EP2, **DISTRIBUTED}),
    "ep2 as one": ("ep2", 1, {}),
    "one as ep2": ("one", 2, EP2),
    "ep2-distopt as one-distopt": ("ep2-distopt", 1, DISTRIBUTED),
    "one-distopt as ep2-distopt": ("one-distopt", 2, {**EP2, **DISTRIBUTED}),
    "ep2 as ep4": ("ep2", 4, EP4),
}
LONELY = [["update", 0, 1]]  # one sample per optimiser step: some ranks have none, and tokens come to them all the same


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("experts")
    model = str(tiny_model(EXPERTS, folder / "model"))
    result: dict[str, list[Any]] = {}
    for size, layouts in ((1, ALONE), (2, TWO), (4, FOUR)):
        cases = {name: {"model": model, "config": config, "actions": ACTIONS} for name, config in layouts.items()}
        lonely = {"placement": {"expert_parallel": size}}
        cases[f"lonely{size}"] = {"model": model, "config": lonely, "actions": LONELY}
        cases[f"sums{size}"] = {"model": model, "config": lonely, "actions": ["sums_over_one_rank"]}
        result |= run_ranks(folder / str(size), size, cases)
    return result


@pytest.mark.parametrize("case", [name for name in (*ALONE, *TWO, *FOUR) if name != "plain"])
def test_same_losses_and_gradients(outcomes: dict[str, list[Any]], case: str) -> None:
    assert len(outcomes[case]) == len(ACTIONS), outcomes[case]
    check_same(outcomes[case][:3], outcomes["plain"][:3])


@pytest.mark.parametrize("case", [name for name in (*ALONE, *TWO, *FOUR) if name != "plain"])
def test_same_weights_under_the_same_names(outcomes: dict[str, list[Any]], case: str) -> None:
    found, wanted = (
        {name: (numel, total) for bucket in outcomes[which][3] for name, numel, total in bucket}
        for which in (case, "plain")
    )
    assert found.keys() == wanted.keys()
    for name, (numel, total) in wanted.items():
        assert found[name][0] == numel
        assert found[name][1] == pytest.approx(total, abs=2e-3), name


@pytest.mark.parametrize("case", ["lonely2", "lonely4"])
def test_a_rank_without_samples_takes_part(outcomes: dict[str, list[Any]], case: str) -> None:
    check_same(outcomes[case], outcomes["lonely1"])


@pytest.mark.parametrize("case", ["sums1", "sums2", "sums4"])
def test_nothing_is_summed_over_a_group_of_one_rank(outcomes: dict[str, list[Any]], case: str) -> None:
    assert outcomes[case] == [0]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """By writer: an update, a checkpoint, two more; by reader: the checkpoint, then the same two."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model = str(tiny_model(EXPERTS, folder / "model"))
    result: dict[str, list[Any]] = {}
    for phase, cases in (("write", {n: (n, *rest) for n, rest in WRITERS.items()}), ("read", READERS)):
        for size in (1, 2, 4):
            first = [["update", 0]] if phase == "write" else []
            verb = "save" if phase == "write" else "load"
            launched = {
                name: {"model": model, "config": c, "actions": [*first, [verb, str(folder / which)], *ACTIONS[1:3]]}
                for name, (which, ranks, c) in cases.items()
                if ranks == size
            }
            if launched:
                result |= run_ranks(folder / f"{phase}{size}", size, launched)
    return result


@pytest.mark.parametrize("name", READERS)
def test_a_checkpoint_goes_on_however_the_experts_are_shared_out(resumed: dict[str, list[Any]], name: str) -> None:
    assert len(resumed[name]) == 3, resumed[name]
    writer = READERS[name][0]
    check_same(resumed[name][1:], resumed[writer][2:])
    if name == f"{writer} as {writer}":
        assert resumed[name][1:] == resumed[writer][2:]
