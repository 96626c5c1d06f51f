"""Where layers beside experts cannot be cut, the way back is told whole."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from common.mistake import Mistake
from core.checks.model import shape_divides
from core.checks.parallel import sequence_parallel_has_peers
from core.config.schema import RunConfig


def mistakes(name: str, placement: dict[str, Any]) -> list[Mistake]:
    """What is wrong with the layout for a known shape."""
    rollout = {"num_rollout": 1, "rollout_batch_size": 1}
    sections = {"model": {"path": "."}, "data": {}, "rollout": rollout, "train": {"global_batch_size": 8}}
    config = RunConfig.model_validate({**sections, "placement": {"trainers_per_node": 2, **placement}})
    return [*shape_divides(config, modelcfg.load(name)), *sequence_parallel_has_peers(config)]


@pytest.mark.parametrize("name", ["minimax-m2-229b-a10b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_what_the_remedy_says_is_taken(name: str, sequence_parallel: bool) -> None:
    cut = {"tensor_parallel": 2, "sequence_parallel": sequence_parallel}
    said = str(mistakes(name, cut)[0])
    assert "tensor_parallel to 1" in said
    assert ("sequence_parallel to false" in said) == sequence_parallel
    assert mistakes(name, {**cut, "tensor_parallel": 1, "sequence_parallel": False}) == []
