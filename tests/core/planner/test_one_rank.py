"""What a plan tells the sizes of buffers, passes and graphs: every setting of the run file gets there."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.megatron.sizes.activations import Pass, update_bytes
from core.megatron.sizes.buffers import Sharing, buffer_bytes
from core.megatron.sizes.graphs import Graphs, graph_bytes
from core.planner import Device, engine, plan_memory, trainer
from core.residency.table import ENGINE
from modelcfg.shards import rank_parameters
from modelcfg.stages import Stages
from tests.support.plans import CPU, H100, plan, run

QWEN = modelcfg.load("qwen3-8b")  # 36 layers
EIGHT = {"trainers_per_node": 8, "tensor_parallel": 2, "pipeline_parallel": 2}


@pytest.mark.parametrize(
    ("stage", "changes", "wanted"),
    [
        (0, {"sequence_parallel": True}, {"sequence_parallel": True, "in_flight": 2, "is_last": False}),
        (1, {}, {"in_flight": 1, "is_first": False}),
    ],
)
def test_how_a_stage_is_run(stage: int, changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    train = {"recompute": "full", "recompute_layers": 5}
    config = run("qwen3-8b", placement={**EIGHT, **changes}, train=train)
    how = Pass(**{"element_bytes": 2, "tensor_parallel": 2, "num_layers": 18, "recomputed": 5}, **wanted)
    for device, attention in (("cuda", "whole"), ("cpu", "plain")):
        expected = Pass(**{**vars(how), "attention": attention})
        assert trainer._pass(config, QWEN, device, stage) == expected
        assert trainer.update_work(config, QWEN, device, stage) == update_bytes(QWEN, expected, 8192, 8192)
    assert trainer.update_work(config, QWEN, "cuda") == trainer.update_work(config, QWEN, "cuda", 0)


def test_dense_layers_are_those_of_the_first_stages() -> None:
    shape = modelcfg.load("glm4.5-355b-a32b").model_copy(update={"num_layers": 8})  # 3 of them dense
    config = run("glm4.5-355b-a32b", placement={"trainers_per_node": 4, "pipeline_parallel": 4})
    assert [trainer._pass(config, shape, "cuda", stage).dense for stage in range(4)] == [2, 1, 0, 0]
    assert trainer._pass(run("qwen3-8b"), QWEN, "cuda", 0).dense == 0


def test_in_fp32_attention_is_plain_on_a_gpu_too() -> None:
    how = trainer._pass(run("qwen3-8b", model={"dtype": "float32"}), QWEN, "cuda", 0)
    assert (how.element_bytes, how.attention, type(how.num_layers)) == (4, "plain", int)


def test_how_the_optimisers_state_is_shared_out() -> None:
    config = run("qwen3-8b", placement=EIGHT, train={"use_distributed_optimizer": True})
    sharing = Sharing(distributed=True, ranks=2, rank=1, expert_parallel=1, pipeline_parallel=2, tied=False)
    parameters = rank_parameters(QWEN, 2, Stages(2), 1, 1)
    assert trainer.part_bytes(config, QWEN, "cuda", stage=1, dp_rank=1) == buffer_bytes(parameters, 2, sharing, False)
    first = buffer_bytes(rank_parameters(QWEN, 2, Stages(2), 0, 1), 2, Sharing(True, 2, 0, 1, 2, False), False)
    assert trainer.part_bytes(config, QWEN, "cuda") == first


def test_experts_and_tied_embeddings_are_told_to_the_buffers() -> None:
    shape = modelcfg.load("qwen3-30b-a3b").model_copy(update={"tied_embeddings": True, "num_layers": 2})
    placement = {"trainers_per_node": 8, "expert_parallel": 4}
    found = trainer._sharing(run("qwen3-30b-a3b", placement=placement), shape, 3)
    assert found == Sharing(distributed=False, ranks=8, rank=3, expert_parallel=4, pipeline_parallel=1, tied=True)


def test_graphs_keep_what_flash_attention_keeps() -> None:
    config, shape = run("qwen3-0.6b", train={"recompute": "none"}), modelcfg.load("qwen3-0.6b")
    how = Pass(element_bytes=2, num_layers=28, attention="flash")
    found = trainer.graph_work(config, shape, "cuda", Graphs(2048, False))
    assert found == graph_bytes(shape, how, 2048)


def test_graphs_that_are_tried_hold_half_as_many_tokens_each_time() -> None:
    config = run("qwen3-0.6b", train={"recompute": "none", "max_tokens_per_micro_batch": 2048})
    found = trainer.possible_graphs(config, modelcfg.load("qwen3-0.6b"), "cuda")
    assert found == [(2048, True), (1024, False), (512, False), (256, False)]


@pytest.mark.parametrize(("device", "dtype"), [(H100, "bfloat16"), (CPU, "float32")], ids=["gpu", "cpu"])
@pytest.mark.parametrize("offload", ["auto", "on", "off"])
def test_a_type_that_is_the_devices_own_is_planned_as_that_type(device: Device, dtype: str, offload: str) -> None:
    changes = {"placement": {"offload": offload}, "train": {"recompute": "none", "max_tokens_per_micro_batch": 4096}}
    own, said = (plan(run("qwen3-0.6b", model={"dtype": name}, **changes), device) for name in ("auto", dtype))
    assert own == said


def test_the_copies_of_a_cpus_parts_are_needed_too() -> None:
    config = run("smollm2-135m", model={"dtype": "float32"}, placement={"offload": "on"})
    found = plan(config, CPU)
    assert found.host_bytes > 0
    assert found.needed_bytes() == found.phase_bytes(found.fullest()) + found.host_bytes


def test_a_device_that_is_just_large_enough_fits() -> None:
    config = run(placement={"offload": "on", "engine_max_total_tokens": 4096})
    needed = plan(config).needed_bytes()
    assert [plan(config, Device("cuda", size)).fits() for size in (needed, needed - 1)] == [True, False]


def test_a_plan_says_which_stage_it_is_of() -> None:
    config = run("qwen3-8b", placement=EIGHT)
    assert [plan_memory(config, QWEN, H100, stage=stage).stage for stage in (0, 1)] == [0, 1]


def test_prompts_are_read_in_an_evaluation_too() -> None:
    phases = plan(run()).phases
    assert phases["eval"][ENGINE]["forward pass"] == phases["rollout"][ENGINE]["forward pass"] > 0


def test_two_tensor_parallel_ranks_have_communicators() -> None:
    one, two = (run("qwen3-8b", placement={"trainers_per_node": n, "tensor_parallel": n}) for n in (1, 2))
    assert [trainer.num_communicators(config) for config in (one, two)] == [0, 2]


@pytest.mark.parametrize("change", [{"ffn_hidden_size": 200_000}, {"num_attention_heads": 1600, "head_dim": 125}])
def test_any_matrix_may_be_larger_than_a_bucket(change: dict[str, int]) -> None:
    shape = QWEN.model_copy(update=change)
    assert engine.bucket_bytes(run("qwen3-8b"), shape, "cuda") == 3 * 200_000 * 4096 * 2
