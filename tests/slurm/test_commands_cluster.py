"""The commands on a real cluster, where docs/slurm.md does not already show them: waiting, failing, lying, chains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm_cluster import Cluster, wait_until
from tests.support.tiny_runs import EBBTIDE, write_run

pytestmark = pytest.mark.slurm

# passes the trial call before the queue, and fails for every sample of the run
BROKEN_REWARD = """
def reward(sample):
    if sample.num_response_tokens:
        raise ValueError("no reward today")
    return 0.0
"""


def write_site(folder: Path, **keys: Any) -> Path:
    """The site of the test cluster."""
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"shared_filesystems": [str(folder)], "python": sys.executable, **keys}))
    return path


def run_file(folder: Path, slurm: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]) -> Path:
    """A tiny run on the CPU with a time limit."""
    slurm = {"time": "00:10:00", **(slurm or {})}
    return write_run(folder, placement={"device": "cpu"}, slurm=slurm, **sections)


def ebbtide(*words: str | Path, code: int = 0, timeout_s: float = 240) -> str:
    """Both outputs of a command that must end with this code."""
    env = {**os.environ, "PYTHONPATH": "", "COLUMNS": "200"}
    command = [EBBTIDE, *map(str, words)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=timeout_s
    )
    assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def test_a_run_that_waits_in_the_queue(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run("sbatch", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 200")
    site, out = write_site(tmp_path), tmp_path / "out"
    said = ebbtide("submit", run_file(tmp_path), "--site", site, "--run-dir", out)
    job_id = json.loads((out / "slurm" / "job.json").read_text())["job_id"]
    assert f"job: {job_id}" in said
    wait_until(lambda: "Resources" in ebbtide("status", out), 60.0, "Slurm to say why the run waits")
    assert f"pending job {job_id}" in ebbtide("status", out)
    assert "found a run that is pending; wanted a job that runs" in ebbtide("attach", out, code=2)
    assert "no logs yet" in ebbtide("logs", out, code=2)
    assert f"found a run that is pending (job {job_id})" in ebbtide("submit", "--resume", out, "--site", site, code=2)
    assert f"job {job_id}: ended" in ebbtide("cancel", out)
    assert job_id not in cluster.live_jobs()
    assert "cancelled" in ebbtide("status", out)
    assert f"job {job_id}: ended" in ebbtide("cancel", out)  # once more is no mistake


@pytest.mark.parametrize(
    ("site", "slurm", "message"),
    [
        ({"partition": "mian"}, {}, "main"),
        ({}, {"components": [{"role": "trainers", "gpus_per_node": 4}]}, "GPU"),
        ({}, {"components": [{"role": "trainers"}, {"role": "rewards", "nodes": 5}]}, "nodes"),
        ({"partition": "short"}, {"time": "00:30:00"}, "10"),
    ],
    ids=["partition", "GPUs", "nodes", "time"],
)
def test_a_site_that_lies_is_found_out_before_submission(
    cluster: Cluster, tmp_path: Path, site: dict[str, Any], slurm: dict[str, Any], message: str
) -> None:
    path = run_file(tmp_path, slurm)
    said = ebbtide("submit", path, "--site", write_site(tmp_path, **site), "--run-dir", tmp_path / "out", code=2)
    assert "cannot be submitted, 1 mistake" in said
    assert "found" in said
    assert "wanted" in said
    assert message in said
    assert not (tmp_path / "out").exists()
    assert cluster.live_jobs() == []


@pytest.mark.run
@pytest.mark.slow
def test_a_failing_run_says_why_and_is_never_completed(cluster: Cluster, tmp_path: Path) -> None:
    site, out = write_site(tmp_path), tmp_path / "out"
    path = run_file(tmp_path)
    (tmp_path / "reward.py").write_text(BROKEN_REWARD)
    said = ebbtide("submit", path, "--site", site, "--run-dir", out, "--wait", code=1)
    assert "no reward today" in said
    assert f"after mending it: ebbtide submit --resume {out}" in said
    job_id = json.loads((out / "slurm" / "job.json").read_text())["job_id"]
    assert cluster.wait_for_state(job_id, ["FAILED"]) == "FAILED"
    assert "failed" in ebbtide("status", out)


@pytest.mark.run
@pytest.mark.slow
def test_a_chain_where_the_site_forbids_requeueing(cluster: Cluster, tmp_path: Path) -> None:
    site, out = write_site(tmp_path, requeue=False), tmp_path / "out"
    path = run_file(tmp_path, {"chain": 2}, rollout={"num_rollout": 1})
    ebbtide("submit", path, "--site", site, "--run-dir", out, "--wait")
    first, second = json.loads((out / "slurm" / "job.json").read_text())["chain"]
    wait_until(lambda: not cluster.live_jobs(), 60.0, "the second job to end")
    for job_id in (first, second):
        assert cluster.wait_for_state(job_id, ["COMPLETED"]) == "COMPLETED"
    assert [path.name for path in (out / "attempts").iterdir() if path.name.isdigit()] == ["1"]


def test_following_costs_slurm_one_question_in_ten_seconds(cluster: Cluster, tmp_path: Path) -> None:
    """`status --watch` of a waiting run, with a squeue that counts."""
    cluster.run("sbatch", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 200")
    out, count = tmp_path / "out", tmp_path / "count"
    ebbtide("submit", run_file(tmp_path), "--site", write_site(tmp_path), "--run-dir", out)
    (tmp_path / "squeue").write_text(f'#!/bin/bash\necho x >> "{count}"\nexec /usr/bin/squeue "$@"\n')
    (tmp_path / "squeue").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": ""}
    began = time.monotonic()
    watching = subprocess.Popen([EBBTIDE, "logs", str(out), "--follow"], env=env, stderr=subprocess.DEVNULL)
    time.sleep(22)
    watching.terminate()
    watching.wait(timeout=20)
    assert 2 <= len(count.read_text().split()) <= 1 + (time.monotonic() - began) / 10
    ebbtide("cancel", out)
