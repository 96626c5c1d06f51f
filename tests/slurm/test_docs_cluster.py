"""Every command of docs/slurm.md, in its order, on a real cluster; tiny runs take the place of the examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.slurm_cluster import Cluster, wait_until
from tests.support.tiny_runs import write_run
from tests.test_docs import ON_A_CLUSTER, ROOT, commands_of

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

INSTALLATION = ("make install", ". .venv/bin/activate")  # CI has done both when it comes here
NUM_STEPS = 8  # so many that a run is not over before it is cancelled
COMPLETE = ("runs/first", "runs/second", "runs/third", "runs/fourth", "runs/rates/000", "runs/rates/001")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with tiny stand-ins for the examples, on as many nodes and with the same parts."""
    examples = tmp_path / "examples"
    for name in ("smollm2-arithmetic.yaml", "smollm2-slurm.yaml"):
        shipped = yaml.safe_load((ROOT / "examples" / name).read_text())
        placement = {**shipped.get("placement", {}), "device": "cpu"}
        slurm = {**shipped.get("slurm", {}), "time": "00:10:00"}
        write_run(examples, placement=placement, slurm=slurm, rollout={"num_rollout": NUM_STEPS}).rename(
            examples / name
        )
    return tmp_path


def shell(line: str, workspace: Path) -> str:
    """Output of a command line, as typed in the workspace; a failing one fails the test."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "COLUMNS": "200", "PYTHONPATH": ""}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=workspace, env=env, timeout=300)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def prepare(line: str, workspace: Path) -> None:
    """What a person does or sees before typing the line."""
    if line.startswith("ebbtide doctor --site"):
        with (workspace / "site.yaml").open("a") as site:  # "fill in what Slurm cannot know"
            site.write(f"\nshared_filesystems: [{workspace}]\n")
    elif line.startswith("ebbtide attach"):
        wait_until(lambda: any((workspace / "runs/first/attempts").glob("1/*.log")), 60.0, "the first run to begin")
    elif line == "ebbtide logs runs/first --follow":  # a node of another component, while the run works
        node = json.loads((workspace / "runs/first/ledger.jsonl").read_text().splitlines()[0])["nodes"][-1]
        assert shell(f"ebbtide attach runs/first --node {node} -- hostname", workspace).strip() == node
    elif line.startswith("ebbtide cancel"):
        kept = workspace / "runs/second/checkpoints"
        wait_until(lambda: any(kept.glob("*/manifest.json")), 120.0, "a checkpoint of the second run")


def test_the_page_from_an_empty_account_to_a_finished_run(cluster: Cluster, workspace: Path) -> None:
    lines = [line for line in commands_of(ON_A_CLUSTER) if line not in INSTALLATION]
    said = {}
    for line in lines:
        prepare(line, workspace)
        said[line] = shell(line, workspace)
    for run in COMPLETE:
        assert "complete" in shell(f"ebbtide status {run}", workspace), run
    assert said["ebbtide attach runs/first -- hostname"].strip() in cluster.nodes
    assert "phase=update step=2" in said["ebbtide logs runs/first --follow"]
    assert "nothing was submitted" in said["ebbtide submit examples/smollm2-slurm.yaml --dry-run"]
    assert cluster.live_jobs() == []
