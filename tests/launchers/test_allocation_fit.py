from __future__ import annotations

from typing import Any

import pytest

from core.config.schema import RunConfig
from launchers.allocation_fit import Misfit, fitting


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


def test_a_run_that_does_not_say_takes_all_nodes() -> None:
    assert fitting(config({}), "7", 3) == ["placement.num_nodes=3"]
    assert fitting(config({}), "7", 1) == []


def test_a_run_that_says_how_many_must_be_right() -> None:
    assert fitting(config({"num_nodes": 2}), "7", 2) == []
    with pytest.raises(
        Misfit, match=r"num_nodes: found a run on 2 nodes; wanted one on the 3 of allocation 7"
    ):
        fitting(config({"num_nodes": 2}), "7", 3)


def test_components_count_together() -> None:
    parts = config({}, "trainers", "rewards")
    assert fitting(parts, "7", 2) == []
    with pytest.raises(Misfit, match=r"slurm.components: found a run on 2 nodes.*salloc --nodes=2"):
        fitting(parts, "7", 1)
