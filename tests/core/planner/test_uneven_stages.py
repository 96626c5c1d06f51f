"""Plans of pipelines whose stages differ in length: each stage by its own layers, and lengths that are proposed."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.config.schema import RunConfig
from core.planner import remedy, trainer
from core.planner.changes import accepted, apply, pipeline_changes, size_problems
from core.planner.decisions import plan_memory
from core.planner.machine import Layout, Machine, layouts
from core.planner.search import least_bytes
from modelcfg.shards import rank_parameters
from modelcfg.stages import Stages
from tests.support.plans import H100, run

GLM = modelcfg.load("glm4-32b")  # 61 layers
LENGTHS = (16, 16, 16, 13)


def over_four(**placement: Any) -> RunConfig:
    return run("glm4-32b", placement={"trainers_per_node": 4, "pipeline_parallel": 4, **placement})


@pytest.mark.parametrize(
    ("ends", "lengths"),
    [
        ({"pipeline_last_layers": 13}, LENGTHS),
        ({"pipeline_first_layers": 10}, (10, 17, 17, 17)),
        ({"pipeline_first_layers": 14, "pipeline_last_layers": 15}, (14, 16, 16, 15)),
    ],
)
def test_each_stage_is_planned_with_its_own_layers(ends: dict[str, int], lengths: tuple[int, ...]) -> None:
    config = over_four(**ends)
    assert size_problems(config, GLM) == []
    assert [trainer._pass(config, GLM, "cuda", stage).num_layers for stage in range(4)] == list(lengths)
    for stage, length in enumerate(lengths):
        held = rank_parameters(
            GLM, 1, Stages(4, *(ends.get(f"pipeline_{end}_layers") for end in ("first", "last"))), stage
        )
        assert len({name.split(".")[2] for name in held if name.startswith("decoder.layers.")}) == length
        gradients = trainer.part_bytes(config, GLM, "cuda", stage)["gradients"]
        assert gradients == 4 * sum(held.values())


def test_a_shorter_last_stage_needs_less() -> None:
    equal = {"tensor_parallel": 1, "pipeline_parallel": 4, "trainers_per_node": 4}
    shape = modelcfg.load("qwen3-8b")
    configs = [run("qwen3-8b", placement=equal | more) for more in ({}, {"pipeline_last_layers": 6})]
    even, short = (plan_memory(config, shape, H100, stage=3).needed_bytes() for config in configs)
    assert short < even


def test_dense_layers_are_those_of_a_short_first_stage_and_the_next() -> None:
    shape = modelcfg.load("deepseek-r1-671b-a37b")  # 61 layers, 3 of them dense
    placement = {"trainers_per_node": 4, "pipeline_parallel": 4, "pipeline_first_layers": 1}
    config = run("deepseek-r1-671b-a37b", placement=placement)
    assert [trainer._pass(config, shape, "cuda", stage).dense for stage in range(4)] == [1, 2, 0, 0]


@pytest.mark.parametrize("ends", [{}, {"pipeline_last_layers": 12}, {"pipeline_first_layers": 60}])
def test_a_plan_is_refused_where_layers_do_not_add_up(ends: dict[str, int]) -> None:
    config = over_four(**ends)
    (problem,) = size_problems(config, GLM)
    assert problem.key == f"placement.{next(iter(ends), 'pipeline_parallel')}"
    assert not accepted(config, GLM)


def test_proposed_stages_leave_the_last_one_shorter() -> None:
    one = run("glm4-32b", placement={"trainers_per_node": 8})
    changes = {"placement.pipeline_parallel": 4, "placement.pipeline_last_layers": 13}
    assert pipeline_changes(one, GLM, 4) == changes
    assert pipeline_changes(one, modelcfg.load("qwen3-8b"), 4) == {"placement.pipeline_parallel": 4}
    assert changes in remedy._split(one, GLM, "placement.pipeline_parallel")
    assert all(accepted(apply(one, one_of), GLM) for one_of in remedy._split(one, GLM, "placement.pipeline_parallel"))


def test_lengths_of_the_run_file_stay_with_its_number_of_stages() -> None:
    own = over_four(pipeline_first_layers=10)
    assert pipeline_changes(own, GLM, 4) == {}
    back = {"placement.pipeline_parallel": 8, "placement.pipeline_first_layers": None}
    assert pipeline_changes(own, GLM, 8) == {**back, "placement.pipeline_last_layers": 5}
    assert pipeline_changes(own, GLM, 1) == {"placement.pipeline_parallel": 1, "placement.pipeline_first_layers": None}


def test_a_search_goes_through_stages_that_do_not_divide() -> None:
    found = set(layouts(GLM, Machine(1, 8)))
    assert {Layout(1, 2, 1), Layout(2, 4, 1), Layout(1, 8, 1)} <= found
    config = over_four(pipeline_last_layers=13)
    held = [trainer.part_bytes(config, GLM, "cuda", stage) for stage in range(4)]
    assert least_bytes(GLM, Layout(1, 4, 1)) <= max(parts["parameters"] + parts["gradients"] for parts in held)
