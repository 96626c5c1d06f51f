"""Experts that engines cannot tell."""

from __future__ import annotations

import pytest

import modelcfg
from core.checks.routing import engines_tell_of_them
from core.config.schema import RunConfig


@pytest.mark.parametrize(
    ("name", "kind", "refused"),
    [
        ("minimax-m2-229b-a10b", "engine", True),
        ("minimax-m2-229b-a10b", "trainer", False),
        ("qwen3-30b-a3b", "engine", False),
    ],
)
def test_engines_of_one_family_cannot_tell(name: str, kind: str, refused: bool) -> None:
    rollout = {"num_rollout": 1, "rollout_batch_size": 1}
    sections = {"model": {"path": "."}, "data": {}, "rollout": rollout, "train": {"global_batch_size": 8}}
    config = RunConfig.model_validate({**sections, "algorithm": {"routing_replay": kind}})
    found = [str(one) for one in engines_tell_of_them(config, modelcfg.load(name))]
    assert bool(found) == refused
    assert all("found engine for minimax-m2-229b-a10b; wanted none or trainer" in one for one in found)
