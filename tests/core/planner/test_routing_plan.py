"""Bytes of experts that are replayed: 48 layers with 8 experts of a token, 128 samples of 2048 tokens in a step."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.planner import plan_disk
from launchers.show.memory_table import render_memory
from tests.support.plans import H200, plan, run

MODEL = "qwen3-30b-a3b"
STEP, ROW = 128 * 2048 * 384, 8192 * 384 * 2
TWO = {"trainers_per_node": 2, "expert_parallel": 2, "engines_per_node": 2}


def with_replay(kind: str, **placement: Any) -> Any:
    train = {"num_steps_per_rollout": 2, "global_batch_size": 64}
    placed = {"engine_max_total_tokens": 50_000, "device": "cuda", "offload": "off", **placement}
    return run(MODEL, algorithm={"routing_replay": kind}, train=train, placement=placed)


@pytest.mark.parametrize(
    ("kind", "placement", "host"),
    [
        ("trainer", {}, STEP),
        ("trainer", TWO, 2 * STEP),
        ("engine", {}, 3 * STEP + 50_000 * 384 * 4),
        ("engine", TWO, 4 * STEP + 2 * 50_000 * 384 * 4),
        ("engine", {**TWO, "engines_per_node": 1, "engine_tensor_parallel": 2}, 4 * STEP + 2 * 50_000 * 384 * 4),
    ],
)
def test_a_node_holds_those_of_each_rank_and_of_each_engine(kind: str, placement: dict[str, int], host: int) -> None:
    config, without = with_replay(kind, **placement), plan(with_replay("none", **placement), H200)
    found = plan(config, H200)
    assert found.host_bytes - without.host_bytes == host
    assert sum(found.phases["update"]["trainer"].values()) - sum(without.phases["update"]["trainer"].values()) == ROW
    assert f"{host / 2**30:.2f} GiB of it for experts" in render_memory(config, modelcfg.load(MODEL), found)


def test_the_engines_are_in_the_file_of_a_step() -> None:
    none, trainer, engine = (
        plan_disk(with_replay(kind), modelcfg.load(MODEL), "cuda").step for kind in ("none", "trainer", "engine")
    )
    assert (trainer - none, engine - none) == (0, STEP)
