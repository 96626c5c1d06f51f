"""The settings that a remedy tries, in their order: each step costs more, or gives up more, than the one before."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.planner import engine_room, plan_memory, remedy
from core.planner.changes import apply, in_words, without_present
from core.planner.memory import Device
from core.planner.search import ALL_LAYERS, budgets
from tests.support.plans import GIB, H100, run

QWEN = modelcfg.load("qwen3-0.6b")  # 28 layers, 8 key heads
EXPERTS = modelcfg.load("qwen3-30b-a3b")
TOKENS = "train.max_tokens_per_micro_batch"


@pytest.mark.parametrize(
    ("present", "response", "tokens"),
    [
        (3000, 1536, [2816, 2560, 2304, 2048]),
        (2816, 1536, [2560, 2304, 2048]),
        (2305, 1536, [2304, 2048]),
        (2304, 1500, [2048, 2012]),
        (2049, 1536, [2048]),
        (2048, 1536, []),
    ],
)
def test_budgets_fall_by_256_tokens_to_the_longest_sample(present: int, response: int, tokens: list[int]) -> None:
    config = run(train={"max_tokens_per_micro_batch": present}, rollout={"max_response_tokens": response})
    assert budgets(config) == [{TOKENS: count} for count in tokens]


@pytest.mark.parametrize(
    ("train", "counts", "all_layers"),
    [
        ({"recompute": "none"}, range(1, 7), True),
        ({"recompute": "full", "recompute_layers": 4}, range(5, 7), True),
        ({"recompute": "full", "recompute_layers": 7}, (), False),
        ({"recompute": "full"}, (), False),
    ],
    ids=["none", "some", "each by its number", "all"],
)
def test_layers_of_a_stage_are_recomputed_one_more_at_a_time(
    train: dict[str, Any], counts: range, all_layers: bool
) -> None:
    config = run("qwen3-0.6b", train=train, placement={"trainers_per_node": 4, "pipeline_parallel": 4})
    some = [{"train.recompute": "full", "train.recompute_layers": count} for count in counts]
    assert remedy._recompute(config, QWEN) == [*some, *([ALL_LAYERS] if all_layers else [])]


@pytest.mark.parametrize(("offload", "tried"), [("off", [{"placement.offload": "auto"}]), ("auto", []), ("on", [])])
def test_giving_memory_back_is_tried_where_it_is_off(offload: str, tried: list[dict[str, str]]) -> None:
    assert remedy._offload(run(placement={"offload": offload})) == tried


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        ({"placement": {"trainers_per_node": 2}}, [{"train.use_distributed_optimizer": True}]),
        ({"placement": {"trainers_per_node": 2, "tensor_parallel": 2}}, []),
        ({"placement": {"trainers_per_node": 2}, "train": {"use_distributed_optimizer": True}}, []),
    ],
    ids=["two replicas", "one replica", "shared out already"],
)
def test_the_optimiser_is_shared_out_over_replicas(changes: dict[str, Any], tried: list[dict[str, bool]]) -> None:
    assert remedy._distributed(run("qwen3-0.6b", **changes)) == tried


TENSOR, EXPERT, PIPELINE = remedy.SPLITS


@pytest.mark.parametrize(
    ("shape", "placement", "key", "tried"),
    [
        (QWEN, {"trainers_per_node": 8}, TENSOR, [2, 4, 8]),
        (QWEN, {"trainers_per_node": 8, "tensor_parallel": 2}, TENSOR, [4, 8]),
        (QWEN, {"trainers_per_node": 2, "tensor_parallel": 2}, TENSOR, []),
        (QWEN, {"trainers_per_node": 6}, TENSOR, [2]),  # 6 GPUs are no multiple of 4
        (QWEN, {"trainers_per_node": 2, "num_nodes": 2}, TENSOR, [2]),  # within a node
        (QWEN, {"trainers_per_node": 2, "num_nodes": 4}, PIPELINE, [2, 4, 8]),  # 28 layers
        (QWEN, {"trainers_per_node": 4}, EXPERT, []),
        (EXPERTS, {"trainers_per_node": 4}, EXPERT, [2, 4]),
        (EXPERTS, {"trainers_per_node": 4, "expert_parallel": 2}, PIPELINE, [2]),  # two ranks are left for the experts
    ],
)
def test_a_model_is_split_over_the_gpus_that_there_are(
    shape: modelcfg.ModelShape, placement: dict[str, int], key: str, tried: list[int]
) -> None:
    train = {"global_batch_size": 120, "recompute": "full"}
    rollout = {"rollout_batch_size": 15}
    config = run(shape.name, placement=placement, train=train, rollout=rollout)
    ends = {8: {"placement.pipeline_first_layers": 2, "placement.pipeline_last_layers": 2}} if key == PIPELINE else {}
    assert remedy._split(config, shape, key) == [{key: size, **ends.get(size, {})} for size in tried]


@pytest.mark.parametrize(
    ("placement", "splits"),
    [
        ({"trainers_per_node": 8, "engines_per_node": 2}, [(2, 2), (4, 2), (8, 1)]),
        ({"trainers_per_node": 8, "engines_per_node": 8}, [(2, 4), (4, 2), (8, 1)]),
        ({"trainers_per_node": 4, "engine_tensor_parallel": 2}, [(4, 1)]),
        ({"trainers_per_node": 1}, []),
        ({"trainers_per_node": 4, "engines": "own_gpus"}, [(2, 1), (4, 1)]),  # of the 8 of a node 4 are left
    ],
)
def test_an_engine_is_tried_on_more_gpus(placement: dict[str, Any], splits: list[tuple[int, int]]) -> None:
    wanted = [{engine_room.SPLIT: size, engine_room.COUNT: count} for size, count in splits]
    assert list(engine_room.engine_splits(run("qwen3-0.6b", placement=placement), H100)) == [{}, *wanted]


def test_room_for_exactly_as_many_samples_is_enough() -> None:
    config, shape = run(), modelcfg.load("qwen3-4b")
    room = plan_memory(config, shape, H100).cache.samples(2048)
    assert engine_room.engine_changes(config, shape, H100, room, room) == {}
    assert engine_room.engine_changes(config, shape, H100, room + 1, room + 1) == {engine_room.FRACTION: 0.61}


def test_a_share_gives_the_samples_that_are_wanted_or_as_many_as_there_is_room_for() -> None:
    config, shape = run(placement={"engine_memory_fraction": 0.05}), modelcfg.load("qwen3-4b")

    def room(wanted: int) -> int:
        changed = apply(config, engine_room.engine_changes(config, shape, H100, wanted) or {})
        return plan_memory(changed, shape, H100).cache.samples(2048)

    assert [room(wanted) >= wanted for wanted in (1, 16, 64, 4096)] == [True, True, True, False]
    assert room(1) < room(16) < room(64) < room(4096)
    assert engine_room.engine_changes(config, shape, H100, 4096, 4096) is None


def test_no_share_of_a_small_gpu_has_room() -> None:
    config, shape = run("llama-3.1-8b"), modelcfg.load("llama-3.1-8b")
    assert remedy.engine_remedy(config, shape, Device("cuda", 8 * GIB), 1) == ""


def test_what_is_set_already_is_not_said_and_what_is_taken_back_is_null() -> None:
    config = run("qwen3-0.6b", train={"recompute": "full", "recompute_layers": 4})
    changes = without_present(config, {**ALL_LAYERS, "placement.sequence_parallel": True})
    assert in_words(changes) == "train.recompute_layers: null and placement.sequence_parallel: true"
