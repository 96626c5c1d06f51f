from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from core.config.layout import driven_engines, nodes, num_engines, running_requests
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
