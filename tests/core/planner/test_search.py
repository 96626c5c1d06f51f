"""Layouts: for each known model, on stated machines, one whose plan fits, or the smallest machine that would do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import modelcfg
from common.mistake import Mistake
from core.checks.model import shape_divides
from core.checks.rules import RULES
from core.config.schema import RunConfig
from core.planner import Device, plan_memory, problems
from core.planner.changes import apply
from core.planner.engine_room import engine_splits, fitting_fraction
from core.planner.machine import Layout, Machine, larger_machines, layouts, machine_of
from core.planner.memory import TIGHT
from core.planner.search import HOST_PER_GPU, least_bytes, on_machine, smallest_machine, suits, tried
from core.planner.trainer import part_bytes
from modelcfg import ModelShape
from tests.support.plans import GIB, H100, H200, run

EIGHT_H100, ONE_H200 = ("8 x H100", H100, 8), ("1 x H200", H200, 1)
SECTIONS = {"placement", "train", "data", "rollout", "slurm"}  # those that a search reads
EXPERTS = modelcfg.load("qwen3-30b-a3b")


def asks(name: str, gpus: int, **changes: Any) -> RunConfig:
    """A run of a model with nothing set for its size."""
    return run(name, placement={"trainers_per_node": gpus}, train={"recompute": "none"}, **changes)


def wrongs(config: RunConfig, shape: ModelShape) -> list[Mistake]:
    """What the checks of a run file say, as far as a layout concerns them."""
    rules = [rule for rule in RULES if set(rule.sections) <= SECTIONS]
    assert len(rules) > 10
    return [*shape_divides(config, shape), *(problem for rule in rules for problem in rule.check(config))]


@pytest.mark.parametrize("name", modelcfg.names())
@pytest.mark.parametrize(("kind", "device", "gpus"), [EIGHT_H100, ONE_H200], ids=[EIGHT_H100[0], ONE_H200[0]])
def test_each_known_model_has_a_layout_there_or_is_told_the_smallest_machine(
    kind: str, device: Device, gpus: int, name: str
) -> None:
    config, shape = asks(name, gpus), modelcfg.load(name)
    here = next(on_machine(config, shape, device, machine_of(config), TIGHT), None)
    if here is None:
        found = smallest_machine(config, shape, device, TIGHT)
        assert found is not None
        here, device = found.changes, found.device
        assert found.machine.num_gpus > gpus or (device.total_bytes or 0) > (H200.total_bytes or 0) // 2
    changed = apply(config, here)
    assert wrongs(changed, shape) == []
    plan = plan_memory(changed, shape, device)
    assert problems(changed, shape, plan) == []
    assert plan.fits(share=TIGHT)
    assert plan.host_bytes <= HOST_PER_GPU * changed.placement.trainers_per_node


FOUND: dict[str, tuple[str, Device, int, dict[str, Any]]] = {
    "14b on one H200 streams": ("qwen3-14b", H200, 1, {"train": {"optimizer_state": "auto"}}),
    "30b-a3b on 4 x 141 GB": ("qwen3-30b-a3b", H200, 4, {"placement": {"expert_parallel": 4}}),
    "30b-a3b on 8 x 80 GB": ("qwen3-30b-a3b", H100, 8, {"placement": {"expert_parallel": 8}}),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_layout_without_a_pipeline_is_found_where_the_state_streams(case: str) -> None:
    name, device, gpus, wanted = FOUND[case]
    config, shape = asks(name, gpus), modelcfg.load(name)
    found = [apply(config, changes) for changes in on_machine(config, shape, device, machine_of(config), TIGHT)]
    alone = [one for one in found if one.placement.pipeline_parallel == 1]
    assert any(all(getattr(getattr(one, s), k) == v for s in wanted for k, v in wanted[s].items()) for one in alone)
    assert any(plan_memory(one, shape, device).streamed for one in alone)


def test_experts_over_stages_with_an_engine_on_four_gpus_fit_eight_of_80_gb() -> None:
    changes = {"placement.pipeline_parallel": 2, "placement.expert_parallel": 4, "placement.engine_tensor_parallel": 4}
    config = apply(asks("qwen3-30b-a3b", 8), {**changes, "train.use_distributed_optimizer": True})
    assert Layout(1, 2, 4) in set(layouts(EXPERTS, machine_of(config)))
    found = [apply(config, one) for one in on_machine(config, EXPERTS, H100, machine_of(config), TIGHT)]
    same = [one for one in found if (one.placement.pipeline_parallel, one.placement.expert_parallel) == (2, 4)]
    assert [one.placement.engine_tensor_parallel for one in same] == [4]
    assert suits(same[0], EXPERTS, H100, TIGHT)


SPLITS: dict[str, tuple[dict[str, Any], list[tuple[int, int, int | None]]]] = {
    "one node": ({}, [(8, 1, None)]),
    "six nodes": ({"num_nodes": 6}, [(8, 1, None), (16, 1, None), (24, 1, None), (48, 1, None)]),
    "nodes said": ({"num_nodes": 2, "engine_nodes": 1}, [(8, 1, 1), (16, 1, 2)]),
    "GPUs of their own": ({"num_nodes": 2, "engines": "own_gpus", "trainers_per_node": 4}, [(8, 1, 2)]),
}


@pytest.mark.parametrize("case", SPLITS)
def test_an_engine_may_have_all_gpus_of_nodes_that_share_out_evenly(case: str) -> None:
    said, wanted = SPLITS[case]
    config = run("qwen3-30b-a3b", placement={"trainers_per_node": 8, "engine_tensor_parallel": 4, **said})
    found = [apply(config, split).placement for split in engine_splits(config, replace(H100, per_node=8))][1:]
    assert [(one.engine_tensor_parallel, one.engines_per_node, one.engine_nodes) for one in found] == wanted


def test_a_model_that_no_node_holds_has_an_engine_over_several() -> None:
    """A trillion of bfloat16: 16 GPUs of 80 GB do not hold it either."""
    config = asks("kimi-k2-1026b-a32b", 8)
    config = apply(config, {"placement.num_nodes": 16, "placement.engine_tensor_parallel": 8})
    shape, splits = modelcfg.load("kimi-k2-1026b-a32b"), list(engine_splits(config, H100))
    fitting = [
        apply(config, split).placement.engine_tensor_parallel
        for split in splits
        if fitting_fraction(apply(config, split), shape, H100, wanted=1) is not None
    ]
    assert fitting == [32, 64]


def test_what_a_search_proposes_first_costs_least() -> None:
    """Without need of it, nothing is recomputed, no layer split and no row made smaller."""
    config = run("qwen3-4b", placement={"trainers_per_node": 8}, train={"recompute": "none"})
    first = next(on_machine(config, modelcfg.load("qwen3-4b"), H200, machine_of(config), TIGHT))
    assert first == {"train.use_distributed_optimizer": True, "train.optimizer_state": "auto"}


def test_an_engine_that_takes_too_much_is_given_less() -> None:
    config, shape = run("qwen3-4b", placement={"engine_memory_fraction": 0.97}), modelcfg.load("qwen3-4b")
    changes = next(on_machine(config, shape, H100, machine_of(config), TIGHT))
    assert 0.6 < changes["placement.engine_memory_fraction"] < 0.95
    assert plan_memory(apply(config, changes), shape, H100).fits(share=TIGHT)


def test_the_host_bounds_what_may_stream() -> None:
    components = [{"role": "trainers", "mem": "100G"}]
    config = asks("qwen3-14b", 1, slurm={"components": components})
    shape = modelcfg.load("qwen3-14b")
    assert next(on_machine(asks("qwen3-14b", 1), shape, H200, Machine(1, 1), TIGHT), None) is not None
    assert next(on_machine(config, shape, H200, Machine(1, 1), TIGHT), None) is None


def test_a_part_of_the_job_with_its_number_of_nodes_is_not_given_more() -> None:
    config = asks("qwen3-235b-a22b", 8, slurm={"components": [{"role": "trainers", "nodes": 1, "gpus_per_node": 8}]})
    found = smallest_machine(config, modelcfg.load("qwen3-235b-a22b"), H100, TIGHT)
    assert found is None or found.machine == Machine(1, 8)


def test_larger_machines_go_up_by_their_gpus_and_have_full_nodes() -> None:
    config = run(placement={"trainers_per_node": 4, "num_nodes": 2})
    sizes = larger_machines(config, replace(H100, per_node=8))
    assert sizes[:5] == [Machine(1, 8), Machine(3, 4), Machine(2, 8), Machine(4, 4), Machine(5, 4)]
    assert sizes[-1] == Machine(64, 8)
    assert {machine.per_node for machine in larger_machines(config, replace(H100, per_node=4))} == {4}


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(1, 2, 4), Layout(1, 1, 8), Layout(1, 4, 2)])
def test_no_rank_holds_less_than_the_bytes_by_which_layouts_are_passed_over(layout: Layout) -> None:
    placement = {"trainers_per_node": 8, "pipeline_parallel": layout.pipeline, "expert_parallel": layout.expert}
    config = run("qwen3-30b-a3b", placement=placement)
    held = [part_bytes(config, EXPERTS, "cuda", stage, streamed=True) for stage in range(layout.pipeline)]
    fullest = max(parts["parameters"] + parts["gradients"] for parts in held)
    assert 0.9 * fullest < least_bytes(EXPERTS, layout) <= fullest


def test_what_was_tried_is_what_the_checks_accept() -> None:
    sizes = tried(asks("glm4-32b", 8), modelcfg.load("glm4-32b"), Machine(1, 8))  # 2 key heads, 61 layers
    assert sizes == {"tensor_parallel": [1, 2], "pipeline_parallel": [1, 2, 4, 8], "expert_parallel": [1]}
    sizes = tried(asks("qwen3-30b-a3b", 8), EXPERTS, Machine(1, 8))
    assert sizes == {
        "tensor_parallel": [1],
        "pipeline_parallel": [1, 2, 4, 8],
        "expert_parallel": [1, 2, 4, 8],
    }


def test_a_gpu_of_no_use_leaves_nothing_to_propose() -> None:
    assert (
        smallest_machine(asks("qwen3-4b", 1), modelcfg.load("qwen3-4b"), Device("cuda", GIB, per_node=1), 0.0) is None
    )
