"""Host memory of checkpoints that are written beside the run, and where that decides how they are written."""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.config.sections.slurm import SlurmComponent
from core.planner import plan_disk, problems, saves_apart
from core.planner.changes import apply
from core.planner.memory import TIGHT
from tests.support.plans import CPU, GIB, plan, run

EIGHT = {"trainers_per_node": 8}


@pytest.mark.parametrize(
    ("placement", "share"),
    [
        ({}, 1.0),
        (EIGHT, 1.0),
        ({**EIGHT, "tensor_parallel": 4}, 1.0),
        ({**EIGHT, "num_nodes": 2, "pipeline_parallel": 4, "tensor_parallel": 4}, 0.5),
        ({"trainers_per_node": 2, "num_nodes": 2, "tensor_parallel": 2, "pipeline_parallel": 2}, 0.5),
    ],
    ids=["one", "eight replicas, one writes", "two replicas, one writes", "over two nodes", "two of four ranks"],
)
def test_a_node_has_copies_of_what_its_ranks_of_one_replica_write(placement: dict[str, Any], share: float) -> None:
    config = run(placement=placement)
    whole = plan_disk(config, modelcfg.load("qwen3-4b"), "cuda").checkpoint
    assert plan(config).save_bytes == whole * share


def test_auto_is_beside_the_run_where_the_host_has_room() -> None:
    config = run()
    found = plan(config)
    least = (found.host_bytes + found.save_bytes) / TIGHT
    assert [saves_apart(config, found, round(least + more)) for more in (-1024, 1024)] == [False, True]
    on_cpu = plan(config, CPU)
    least = (on_cpu.needed_bytes() + on_cpu.save_bytes) / TIGHT
    assert [saves_apart(config, on_cpu, round(least + more)) for more in (-1024, 1024)] == [False, True]


def test_what_is_asked_of_slurm_is_all_that_there_is() -> None:
    config = run()
    for mem, wanted in (("64G", False), ("128G", True), ("0", True)):
        asked = apply(config, {"slurm.components": [SlurmComponent(role="trainers", mem=mem)]})
        assert saves_apart(asked, plan(asked), 512 * GIB) is wanted, mem


@pytest.mark.parametrize(("said", "wanted"), [("on", True), ("off", False), (True, True), (False, False)])
def test_a_run_file_may_say_so(said: Any, wanted: bool) -> None:
    config = run(checkpoint={"asynchronous": said})
    assert saves_apart(config, plan(config), 1) is wanted


def test_copies_that_do_not_fit_into_what_is_asked_of_slurm_are_refused() -> None:
    component = {"slurm.components": [SlurmComponent(role="trainers", mem="64G")]}
    shape = modelcfg.load("qwen3-4b")
    for said, count in (("auto", 0), ("on", 1)):
        config = apply(run(checkpoint={"asynchronous": said}), component)
        found = [str(one) for one in problems(config, shape, plan(config))]
        assert len(found) == count, found
    assert "copies of a checkpoint among them: ask for more than 83G" in found[0]
