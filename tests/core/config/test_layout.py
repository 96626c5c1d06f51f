from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from core.config.layout import (
    driven_engines,
    engine_gpus,
    nodes,
    num_engines,
    running_requests,
    serving_together,
)
from tests.support.good_run import write_run
from tests.support.plans import run

PARTS = "[{role: trainers}, {role: engines, nodes: 2, engines_per_node: 3}, {role: rewards, num_workers: 7}]"


def test_without_components_there_are_the_trainers_nodes(tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), ["placement.num_nodes=3"])
    assert [(node.number, node.role, node.engines) for node in nodes(config)] == [
        (number, "trainers", (f"node{number}-engine0",)) for number in range(3)
    ]


def test_nodes_follow_the_parts_and_every_engine_has_one_driver(tmp_path: Path) -> None:
    config = load_run_file(
        write_run(tmp_path), ["placement.num_nodes=2", "placement.engines_per_node=2", f"slurm.components={PARTS}"]
    )
    assert [node.role for node in nodes(config)] == ["trainers", "trainers", "engines", "engines", "rewards"]
    assert [node.index for node in nodes(config)] == [0, 1, 0, 1, 0]
    assert nodes(config)[4].part.num_reward_workers == 7
    driven = driven_engines(config, 0) + driven_engines(config, 1)
    assert sorted(driven) == sorted(name for node in nodes(config) for name in node.engines)
    assert len(driven) == num_engines(config) == 10
    assert {len(driven_engines(config, node)) for node in (0, 1)} == {5}


SPREAD: dict[str, tuple[list[str], int]] = {
    "by its GPUs": (["trainers_per_node=8", "engine_tensor_parallel=16"], 2),
    "as said": (["engine_tensor_parallel=2", "engine_nodes=2"], 1),
    "as said, of CPUs": (["engine_tensor_parallel=4", "engine_nodes=2", "device=cpu"], 1),
}


@pytest.mark.parametrize(("said", "gpus"), SPREAD.values(), ids=SPREAD)
def test_an_engine_over_two_nodes_belongs_to_the_first(said: list[str], gpus: int, tmp_path: Path) -> None:
    placement = ["device=cuda", "num_nodes=4", *said]
    config = load_run_file(write_run(tmp_path), [f"placement.{one}" for one in placement])
    assert [node.engines for node in nodes(config)] == [("node0-engine0",), (), ("node2-engine0",), ()]
    shares = [share for node in nodes(config) for share in node.shares]
    assert [share.name for share in shares] == [
        *("node0-engine0", "node0-engine0-arm1", "node2-engine0", "node2-engine0-arm1")
    ]
    assert [share.rank for share in shares] == [0, 1, 0, 1]
    assert num_engines(config) == 2
    assert [driven_engines(config, node) for node in range(4)] == [["node0-engine0"], [], ["node2-engine0"], []]
    size = config.placement.engine_tensor_parallel
    assert [engine_gpus(config, node, 0) for node in nodes(config)] == [range(size // 2)] * 4
    assert serving_together(config) == 2 * config.placement.trainers_per_node


NOT_SPREAD = {
    "a node's GPUs": ["trainers_per_node=8", "engine_tensor_parallel=8"],
    "not all GPUs of two": ["trainers_per_node=8", "engine_tensor_parallel=12"],
    "CPUs": ["device=cpu", "engine_tensor_parallel=2"],
    "GPUs of their own": ["engines=own_gpus", "engine_tensor_parallel=16"],
}


@pytest.mark.parametrize("said", NOT_SPREAD.values(), ids=NOT_SPREAD)
def test_other_engines_are_on_one_node_each(said: list[str], tmp_path: Path) -> None:
    placement = ["device=cuda", "num_nodes=2", *said]
    config = load_run_file(write_run(tmp_path), [f"placement.{one}" for one in placement])
    assert [node.engines for node in nodes(config)] == [("node0-engine0",), ("node1-engine0",)]


def test_engines_over_nodes_of_their_own(tmp_path: Path) -> None:
    parts = "slurm.components=[{role: trainers}, {role: engines, nodes: 4, engines_per_node: 2}]"
    spread = ["engines=own_gpus", "num_nodes=2", "engine_tensor_parallel=8", "engine_nodes=2"]
    config = load_run_file(write_run(tmp_path), [parts, *(f"placement.{one}" for one in spread)])
    assert [node.engines for node in nodes(config)][2:] == [
        *(("node2-engine0", "node2-engine1"), (), ("node4-engine0", "node4-engine1"), ())
    ]
    assert [share.name for share in nodes(config)[5].shares] == ["node4-engine0-arm1", "node4-engine1-arm1"]
    assert [node.part.gpus_used for node in nodes(config)] == [5, 5, 8, 8, 8, 8]
    assert engine_gpus(config, nodes(config)[1], 0) == range(1, 5)  # behind the node's trainer
    assert serving_together(config) == 1


@pytest.mark.parametrize(
    ("asked", "groups", "engines", "device", "wanted"),
    [
        (None, 16, 1, "cuda", 128),  # all of a step's 16 groups of 8
        (None, 17, 2, "cuda", 72),  # whole groups: 9 of them
        (None, 4, 1, "cuda", 64),
        (None, 64, 1, "cuda", 256),
        (None, 16, 1, "cpu", 64),
        (300, 16, 1, "cuda", 300),
        (7, 16, 1, "cpu", 7),
    ],
)
def test_an_engine_makes_its_share_of_a_step_at_a_time(
    asked: int | None, groups: int, engines: int, device: str, wanted: int
) -> None:
    placement = {"engines_per_node": engines, "engine_max_running_requests": asked}
    rollout = {"rollout_batch_size": groups, "n_samples_per_prompt": 8}
    assert running_requests(run("qwen3-0.6b", placement=placement, rollout=rollout), device) == wanted
