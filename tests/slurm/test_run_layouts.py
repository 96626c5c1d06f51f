"""The same run in every way of starting it: as a heterogeneous or ordinary job, in salloc, by hand, locally."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import h5py
import pytest

from core.trajectory import step_path
from tests.slurm_cluster import Cluster
from tests.support.slurm_runs import (
    attempts,
    complete,
    hold,
    hold_phases,
    kill,
    local_losses,
    losses,
    prepare,
    run,
    site_of,
    submit,
    tell,
    wait_for_phase,
)
from tests.support.tiny_runs import EBBTIDE

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

TWO_PARTS = {"components": [{"role": "trainers"}, {"role": "rewards", "num_workers": 2}]}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of the run on one machine: the same number of trainers and engines, no node between them."""
    placement = {"trainers_per_node": 2, "engines_per_node": 2}
    return local_losses(tmp_path_factory.mktemp("local"), placement=placement)


def same(found: dict[int, float], reference: dict[int, float]) -> bool:
    return found == pytest.approx(reference, abs=1e-6) and len(found) == 4


def engines_of(run_dir: Path) -> set[str]:
    found: set[str] = set()
    for step in range(4):
        with h5py.File(step_path(run_dir, step)) as file:
            found |= {name.decode() for name in file["engine"][...]}
    return found


def test_a_job_of_two_components(cluster: Cluster, tmp_path: Path, reference: dict[int, float]) -> None:
    """2 nodes with trainer and engine, 1 node with reward workers; every rank returns its result through Submitit."""
    run_dir = tmp_path / "out"
    job = submit(prepare(tmp_path, num_nodes=2, slurm=TWO_PARTS), run_dir)
    assert "1+1" in cluster.run("squeue", "-h", "-o", "%i") or f"{job}+1" in cluster.run("squeue", "-h", "-o", "%i")
    complete(cluster, job, run_dir, 240)
    assert same(losses(run_dir), reference), tell(run_dir)
    assert engines_of(run_dir) <= {"node0-engine0", "node1-engine0"}
    assert [(a.how, a.job, len(a.nodes)) for a in attempts(run_dir)] == [("complete", job, 3)]
    results = results_of(run_dir)
    assert [(r["procid"], r["role"]) for r in results] == [(0, "trainers"), (1, "trainers"), (2, "rewards")]
    assert {r["host"] for r in results} == set(attempts(run_dir)[0].nodes)
    assert {r["outcome"] for r in results} == {"complete"}
    log = run_dir / "attempts" / "1" / "node2-rewards.0.log"
    assert "workers=2" in log.read_text()


def results_of(run_dir: Path) -> list[dict[str, Any]]:
    """What each task returned, in order of the tasks, from Submitit's files: JOB_TASK_0_result.pkl."""
    files = sorted((run_dir / "slurm" / "submitit").glob("*_result.pkl"), key=lambda path: int(path.name.split("_")[1]))
    found = []
    for path in files:
        kind, value = pickle.loads(path.read_bytes())
        assert kind == "success", value
        found.append(value)
    return found


def test_one_allocation_and_an_engine_over_two_of_its_nodes(
    cluster: Cluster, tmp_path: Path, reference: dict[int, float]
) -> None:
    """`heterogeneous: false`: an ordinary job of three nodes. The trainers' two share an engine, half of which dies."""
    run_dir, spread = tmp_path / "out", {"engine_tensor_parallel": 2, "engine_nodes": 2, "check_sync": 2}
    run_file = prepare(tmp_path, num_nodes=2, placement=spread, slurm={**TWO_PARTS, "heterogeneous": False})
    hold_phases(run_file)
    hold(run_file, "rollout step=1")
    job = submit(run_file, run_dir)
    assert "+" not in cluster.run("squeue", "-h", "-o", "%i")
    wait_for_phase(run_dir, "rollout step=1")
    kill(cluster, attempts(run_dir)[0].nodes[1], "--node-rank 1")
    hold(run_file, None)
    complete(cluster, job, run_dir, 240)
    assert same(losses(run_dir), reference), tell(run_dir)
    assert [(a.how, len(a.nodes)) for a in attempts(run_dir)] == [("complete", 3)]
    assert engines_of(run_dir) == {"node0-engine0"}
    logs = {path.name for path in (run_dir / "attempts" / "1").glob("node*-engine*.log")}
    assert logs == {f"node0-engine0{arm}.{start}.log" for arm in ("", "-arm1") for start in (0, 1)}


@pytest.mark.parametrize("way", ["auto", "files"])
def test_engines_on_nodes_of_their_own(cluster: Cluster, tmp_path: Path, reference: dict[int, float], way: str) -> None:
    """Their weights come by broadcast from another host, or through files in the run directory."""
    run_dir = tmp_path / "out"
    parts = {"components": [{"role": "trainers"}, {"role": "engines"}]}
    job = submit(prepare(tmp_path, slurm=parts, placement={"weight_sync": way}), run_dir)
    complete(cluster, job, run_dir, 240)
    assert same(losses(run_dir), reference), tell(run_dir)
    assert engines_of(run_dir) == {"node0-engine0", "node1-engine0"}
    assert list((run_dir / "sync").glob("*")) == []
    formed = "weight_group=" in (run_dir / "attempts" / "1" / "trainer-0.log").read_text()
    assert formed == (way == "auto")


def test_inside_an_allocation(cluster: Cluster, tmp_path: Path, reference: dict[int, float]) -> None:
    """`salloc -N2 ebbtide run`: all nodes of the allocation, though the run file names one."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path)
    done = subprocess.run(
        ["salloc", "-N2", "-t", "10", EBBTIDE, "run", str(run_file), "--run-dir", str(run_dir)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr + tell(run_dir)
    assert same(losses(run_dir), reference), tell(run_dir)
    assert len(attempts(run_dir)[0].nodes) == 2
    assert "steps" in done.stdout


def test_by_hand_from_the_printed_script(cluster: Cluster, tmp_path: Path, reference: dict[int, float]) -> None:
    """`ebbtide sbatch`: what a user submits without us, in a folder with a space, a quote and a dollar in its name."""
    folder = tmp_path / "it's $HOME here"
    run_dir, run_file = folder / "out", prepare(folder, num_nodes=2)
    script = folder / "job.sbatch"
    script.write_text(run("sbatch", str(run_file), "--run-dir", str(run_dir), *site_of(run_file)))
    job = cluster.run("sbatch", "--parsable", str(script)).strip()
    complete(cluster, job, run_dir, 240)
    assert same(losses(run_dir), reference), tell(run_dir)
    assert json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[0])["job"] == job
