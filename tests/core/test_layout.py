from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from core.layout import BadTime, driven_engines, nodes, num_engines, time_limit_s
from tests.core.config.good_run import write_run

PARTS = "[{role: trainers}, {role: engines, nodes: 2, engines_per_node: 3}, {role: rewards, num_workers: 7}]"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("04:00:00", 14400), ("1-0", 86400), ("1-02:30", 95400), ("2-00:00:10", 172810)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "0", "00:00:00", "-5", "1-2:3:4:5"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(BadTime):
        time_limit_s(text)


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
