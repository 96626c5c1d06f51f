"""A chain of jobs, where the site forbids requeueing: what one job learns about nodes, the next ones heed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.job_record import read_record
from tests.slurm_cluster import Cluster, wait_until
from tests.support.slurm_runs import attempts, complete, hold, hold_phases, kill, prepare, submit, wait_for_phase

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow]


def test_the_next_jobs_leave_out_a_node_on_which_a_process_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, slurm={"chain": 3})
    site = run_file.parent / "site.yaml"
    site.write_text(yaml.safe_dump({**yaml.safe_load(site.read_text()), "requeue": False}))
    hold_phases(run_file)
    hold(run_file, "rollout step=1")
    first = submit(run_file, run_dir)
    record = read_record(RunDirectory(run_dir))
    assert record is not None
    _, second, third = record.chain
    wait_for_phase(run_dir, "rollout step=1")
    (node,) = attempts(run_dir)[0].nodes
    kill(cluster, node, "launchers.rank.trainer ")
    cluster.wait_for_state(first, ["FAILED"], 90)
    wait_until(lambda: f"ExcNodeList={node} " in facts(cluster, third), 10, "the last job to leave out the node")
    hold(run_file, None)
    complete(cluster, second, run_dir)
    before, after = attempts(run_dir)
    assert (before.how, before.failed_nodes, before.job) == ("node_failure", (node,), first)
    assert (after.how, after.job) == ("complete", second)
    assert node not in after.nodes
    cluster.wait_for_state(third, ["COMPLETED"])


def facts(cluster: Cluster, job: str) -> str:
    return cluster.run("scontrol", "show", "job", "--oneliner", job)
