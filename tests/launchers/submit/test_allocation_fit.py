from __future__ import annotations

from typing import Any

import pytest

from core.config.schema import RunConfig
from launchers.submit.allocation_fit import Misfit, fitting


def config(placement: dict[str, Any], *roles: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": "m"},
            "data": {"path": "d"},
            "rollout": {"num_rollout": 1, "rollout_batch_size": 1},
            "train": {"global_batch_size": 8},
            "placement": placement,
            "slurm": {"components": [{"role": role} for role in roles]},
        }
    )


def test_the_trainers_take_all_nodes() -> None:
    assert fitting(config({}), "7", 3) == ["placement.num_nodes=3"]
    assert fitting(config({"num_nodes": 4}), "7", 3) == ["placement.num_nodes=3"]
    assert fitting(config({"num_nodes": 3}), "7", 3) == []


def test_the_trainers_take_what_the_others_leave() -> None:
    parts = config({}, "trainers", "engines", "rewards")
    assert fitting(parts, "7", 5) == ["placement.num_nodes=3"]
    assert fitting(parts, "7", 3) == []
    with pytest.raises(Misfit, match=r"found an allocation \(7\) of 2 nodes; wanted 2 for the parts that are not"):
        fitting(parts, "7", 2)
