from __future__ import annotations

from pathlib import Path

from core.config import load_run_file
from core.config.layout import driven_engines, nodes, num_engines
from tests.support.good_run import write_run

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
