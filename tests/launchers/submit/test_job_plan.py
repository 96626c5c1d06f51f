from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from hpc.sbatch.text import sbatch_text
from hpc.site.files import Site
from launchers.submit.job_plan import JobPlan, make_plan, render, task_command
from tests.support.good_run import write_run

PARTS = "slurm.components=[{role: trainers}, {role: engines, nodes: 1, engines_per_node: 2}, {role: rewards}]"
GPUS = (
    "placement.device=cuda",
    "placement.num_nodes=2",
    "placement.trainers_per_node=4",
    "placement.engines_per_node=2",
    "placement.engine_tensor_parallel=2",
)


def plan(folder: Path, *overrides: str, site: Site | None = None) -> JobPlan:
    return make_plan(load_run_file(write_run(folder), [*GPUS, PARTS, *overrides]), site or Site())


def test_components_ask_for_what_their_processes_use(tmp_path: Path) -> None:
    found = plan(tmp_path)
    assert [(c.name, c.nodes, c.gpus_per_node) for c in found.components] == [
        ("trainers", 2, 4),
        ("engines-1", 1, 4),
        ("rewards-2", 1, 0),
    ]
    assert found.heterogeneous


def test_the_map_names_every_process_with_its_gpus_and_what_it_listens_for(tmp_path: Path) -> None:
    text = render(plan(tmp_path))
    assert text.startswith("heterogeneous job, 4 nodes, 60 min per attempt; ports 20000-29999\n")
    assert text.count("node agent") == 4
    assert text.count("listens for the run's store") == 1
    for line in (
        "component 0 trainers: 2 nodes, 4 GPUs each",
        "  node 1 (task 1)",
        "    trainer rank 6              GPU 2       listens for collectives",
        "    engine node1-engine1        GPU 2,3     listens for generation requests",
        "    engine node2-engine0        GPU 0,1     listens for generation requests",
        "    reward server node3         -           listens for samples to score",
    ):
        assert f"{line}\n" in text


def test_engines_with_gpus_of_their_own_come_behind_the_trainers(tmp_path: Path) -> None:
    found = plan(tmp_path, "placement.engines=own_gpus")
    assert [(c.name, c.gpus_per_node) for c in found.components] == [
        ("trainers", 8),
        ("engines-1", 4),
        ("rewards-2", 0),
    ]
    text = render(found)
    for line in (
        "trainer rank 7              GPU 3 ",
        "engine node1-engine0        GPU 4,5",
        "engine node2-engine1        GPU 2,3",
    ):
        assert f"    {line}" in text


def test_the_map_shows_what_each_node_has_of_an_engine_over_several(tmp_path: Path) -> None:
    spread = ("placement.engines_per_node=1", "placement.engine_tensor_parallel=8", "slurm.components=[]")
    text = render(plan(tmp_path, *spread))
    for line in (
        "engine node0-engine0        GPU 0,1,2,3 listens for generation requests",
        "engine node0-engine0-arm1   GPU 0,1,2,3 listens for its health alone",
    ):
        assert f"    {line}\n" in text


@pytest.mark.parametrize(
    ("run", "site", "minutes"), [(None, None, 60), (None, "02:00:00", 120), ("90", "02:00:00", 90)], ids=str
)
def test_the_run_files_time_limit_goes_before_the_sites(
    run: str | None, site: str | None, minutes: int, tmp_path: Path
) -> None:
    overrides = [f"slurm.time={run}"] if run else []
    assert plan(tmp_path, *overrides, site=Site(time=site)).time_minutes == minutes


def test_where_heterogeneous_jobs_are_forbidden_it_is_one_allocation(tmp_path: Path) -> None:
    found = plan(tmp_path, site=Site(heterogeneous=False))
    assert not found.heterogeneous
    text = sbatch_text(found.job(tmp_path, task_command("python")))
    assert "hetjob" not in text
    assert "--nodes=4" in text
