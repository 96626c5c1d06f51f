"""The settings that a remedy tries, in their order: each step costs more, or gives up more, than the one before."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.planner import remedy
from core.planner.memory import Device
from core.planner.remedy import ALL_LAYERS
from tests.support.plans import GIB, H100, run

QWEN = modelcfg.load("qwen3-0.6b")  # 28 layers, 8 key heads
EXPERTS = modelcfg.load("qwen3-30b-a3b")
STATE = {"train.use_distributed_optimizer": True, "train.optimizer_state": "auto"}
TOKENS = "train.max_tokens_per_micro_batch"


@pytest.mark.parametrize(
    ("present", "response", "budgets"),
    [
        (3000, 1536, [2816, 2560, 2304, 2048]),
        (2816, 1536, [2560, 2304, 2048]),
        (2305, 1536, [2304, 2048]),
        (2304, 1500, [2048, 2012]),
        (2049, 1536, [2048]),
        (2048, 1536, []),
    ],
)
def test_budgets_fall_by_256_tokens_to_the_longest_sample(present: int, response: int, budgets: list[int]) -> None:
    config = run(train={"max_tokens_per_micro_batch": present}, rollout={"max_response_tokens": response})
    assert remedy._tokens(config) == [{TOKENS: tokens} for tokens in budgets]


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


@pytest.mark.parametrize(
    ("shape", "placement", "tried"),
    [
        (QWEN, {"trainers_per_node": 8}, [{"placement.tensor_parallel": size} for size in (2, 4, 8)]),
        (QWEN, {"trainers_per_node": 8, "tensor_parallel": 2}, [{"placement.tensor_parallel": s} for s in (4, 8)]),
        (QWEN, {"trainers_per_node": 2, "tensor_parallel": 2}, []),
        (QWEN, {"trainers_per_node": 6}, [{"placement.tensor_parallel": 2}]),  # 6 GPUs are no multiple of 4
        (EXPERTS, {"trainers_per_node": 4}, [{"placement.expert_parallel": size} for size in (2, 4)]),
    ],
)
def test_layers_are_split_over_the_gpus_of_a_node(
    shape: modelcfg.ModelShape, placement: dict[str, int], tried: list[dict[str, int]]
) -> None:
    train = {"global_batch_size": 120, "recompute": "full"}
    rollout = {"rollout_batch_size": 15}
    config = run(shape.name, placement=placement, train=train, rollout=rollout)
    assert remedy._split(config, shape) == tried


def test_several_changes_at_once_go_on_to_more_gpus_per_node() -> None:
    placement = {"trainers_per_node": 2, "offload": "off"}
    config = run("qwen3-0.6b", placement=placement, train={"max_tokens_per_micro_batch": 2304})
    free = {"placement.offload": "auto", **STATE, **ALL_LAYERS}
    splits: list[dict[str, Any]] = [
        {},
        {"placement.tensor_parallel": 2, "placement.sequence_parallel": True},
        {"placement.tensor_parallel": 4, "placement.sequence_parallel": True, "placement.trainers_per_node": 4},
        {"placement.tensor_parallel": 8, "placement.sequence_parallel": True, "placement.trainers_per_node": 8},
    ]
    wanted = [[free | split, free | split | {TOKENS: 2048}] for split in splits]
    assert list(remedy._together(config, QWEN)) == wanted


def test_experts_are_shared_out_where_several_changes_are_made_at_once() -> None:
    placement = {"trainers_per_node": 4, "expert_parallel": 4, "offload": "auto"}
    config = run("qwen3-30b-a3b", placement=placement, train={"max_tokens_per_micro_batch": 2048})
    alone = {**STATE, **ALL_LAYERS}
    more = alone | {"placement.expert_parallel": 8, "placement.trainers_per_node": 8}
    assert list(remedy._together(config, EXPERTS)) == [[alone], [more]]


def test_shares_of_a_gpu_are_tried_from_the_present_one_outwards_then_more_gpus_per_engine() -> None:
    placement = {"trainers_per_node": 8, "engines_per_node": 2, "engine_memory_fraction": 0.9}
    shares = list(remedy._shares(run("qwen3-0.6b", placement=placement)))
    percents = [round(change["placement.engine_memory_fraction"] * 100, 6) for change in shares[:-2]]
    assert percents[:8] == [90, 89, 91, 88, 92, 87, 93, 86]
    assert sorted(percents) == list(range(5, 96))
    assert shares[-2:] == [{"placement.engine_tensor_parallel": 2}, {"placement.engine_tensor_parallel": 4}]


def test_an_engine_on_two_gpus_is_tried_on_more() -> None:
    placement = {"trainers_per_node": 4, "engine_tensor_parallel": 2}
    shares = list(remedy._shares(run("qwen3-0.6b", placement=placement)))
    assert shares[-1] == {"placement.engine_tensor_parallel": 4}
    assert len(shares) == 91 + 1


def test_room_for_exactly_as_many_samples_is_enough() -> None:
    config, shape = run(), modelcfg.load("qwen3-4b")
    (share,) = remedy.engine_remedy(config, shape, H100, 1).split("set placement.engine_memory_fraction: ")[1:]
    assert float(share) == 0.6
    changed = remedy.apply(config, {"placement.engine_memory_fraction": float(share)})
    room = remedy.plan_memory(changed, shape, H100).cache.samples(2048)
    assert remedy.engine_remedy(config, shape, H100, room) == f"set placement.engine_memory_fraction: {share}"
    assert remedy.engine_remedy(config, shape, H100, room + 1) == "set placement.engine_memory_fraction: 0.61"


def test_where_no_share_has_room_other_gpus_are_the_remedy_for_one_sample_alone() -> None:
    config, shape, small = run("llama-3.1-8b"), modelcfg.load("llama-3.1-8b"), Device("cuda", 8 * GIB)
    wanted = "use GPUs with more memory, or a smaller model: no share of a GPU has room for 1"
    assert remedy.engine_remedy(config, shape, small, 1) == wanted
    assert remedy.engine_remedy(config, shape, small, 2) == ""
