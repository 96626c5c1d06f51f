"""States of real jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import Allocation, SlurmError, job_states
from hpc.slurm.queue import cancel, ended_states
from tests.slurm_cluster import Cluster, wait_until
from tests.slurm_cluster.cluster import ROOT

pytestmark = pytest.mark.slurm

HET = """#!/bin/bash
#SBATCH -N1 -t 3 -o /dev/null --requeue
#SBATCH hetjob
#SBATCH -N2
{body}
"""


def submit(cluster: Cluster, folder: Path, body: str) -> str:
    script = folder / "job.sh"
    script.write_text(HET.format(body=body))
    return cluster.run("sbatch", "--parsable", str(script)).strip()


def test_states_of_a_heterogeneous_job(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "sleep 300")
    wait_until(lambda: job_states([job])[job].state == "RUNNING", 30.0, "the job to run")
    state = job_states([job])[job]
    assert len(state.nodes) == 3
    assert state.time_limit_s == 180
    assert state.end is not None
    assert state.start is not None
    assert 175 <= state.end - state.start <= 185
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: job_states([job])[job].restarts == 1, 30.0, "the requeue to be counted")
    assert job_states([job])[job].is_live
    cancel([job])
    wait_until(lambda: job_states([job])[job].state == "CANCELLED", 30.0, "the job to be cancelled")
    cancel([job])


def test_squeue_and_sacct_agree_on_ends(cluster: Cluster, tmp_path: Path) -> None:
    """The same job from squeue, while it remembers it, and from sacct."""
    job = submit(cluster, tmp_path, "exit 3")
    wait_until(lambda: job_states([job])[job].has_ended, 30.0, "the job to end")
    wait_until(lambda: len(ended_states([job], 30.0)[job].nodes) == 3, 30.0, "sacct to know")
    by_squeue, by_sacct = job_states([job])[job], ended_states([job], 30.0)[job]
    assert (by_squeue.state, by_squeue.exit_code, by_squeue.nodes) == ("FAILED", 3, by_sacct.nodes)
    assert (by_sacct.exit_code, by_sacct.end) == (3, by_squeue.end)


def test_element_of_an_array(cluster: Cluster) -> None:
    wrap = "exit $SLURM_ARRAY_TASK_ID"
    array = cluster.run("sbatch", "--parsable", "-a", "0-2", "-t", "1", "-o", "/dev/null", "--wrap", wrap).strip()
    ids = [f"{array}_{element}" for element in range(3)]
    wait_until(lambda: all(state.has_ended for state in job_states(ids).values()), 30.0, "the array to end")
    assert [state.state for state in job_states(ids).values()] == ["COMPLETED", "FAILED", "FAILED"]
    assert job_states([array])[array].state == "FAILED"


def test_job_that_never_was(cluster: Cluster) -> None:
    assert job_states(["999999"])["999999"].state == "GONE"


def test_lost_node(cluster: Cluster, tmp_path: Path) -> None:
    """A job that may be requeued waits again; one that may not has failed by its node."""
    script = tmp_path / "once.sh"
    script.write_text(HET.format(body="srun --het-group=0-1 sleep 300").replace("--requeue", "--no-requeue"))
    job = cluster.run("sbatch", "--parsable", str(script)).strip()
    wait_until(lambda: job_states([job])[job].state == "RUNNING", 30.0, "the job to run")
    node = job_states([job])[job].nodes[-1]
    cluster.kill_node(node, down=True)
    wait_until(lambda: job_states([job])[job].has_ended, 30.0, "the job to end")
    assert job_states([job])[job].state == "NODE_FAIL"


def test_controller_that_does_not_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = cluster.conf.read_text().replace(f"SlurmctldPort={cluster.settings.controller_port}", "SlurmctldPort=1")
    (tmp_path / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(SlurmError, match=r"squeue: found .*(controller|no answer)"):
        job_states(["1"], timeout_s=3.0)


ALLOCATION = "import os; from hpc import Allocation; print(Allocation.from_environ(os.environ))"


def test_allocation_in_salloc_and_in_its_step(cluster: Cluster) -> None:
    command = f"{sys.executable} -c '{ALLOCATION}'; srun {sys.executable} -c '{ALLOCATION}'"
    said = cluster.run("salloc", "-N2", "-t", "2", "bash", "-c", command, cwd=ROOT).splitlines()
    found = [eval(line) for line in said]  # what a dataclass prints is its constructor
    assert [allocation.in_step for allocation in found] == [False, True, True]
    assert sorted(allocation.procid for allocation in found[1:]) == [0, 1]
    assert {allocation.nodes for allocation in found} == {("n1", "n2")}
    assert Allocation.from_environ({key: value for key, value in os.environ.items() if "SLURM" not in key}) is None


def test_allocation_of_components_in_any_order_of_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Component 0 on a later node than component 1: the tasks count by component all the same."""
    program = tmp_path / "who.py"
    program.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {ALLOCATION}")
    script = tmp_path / "job.sh"
    told = f"(echo $SLURMD_NODENAME; {sys.executable} {program}) > {tmp_path}/task-$SLURM_PROCID"
    step = f"srun --het-group=0-1 bash -c '{told}'"
    script.write_text(
        HET.format(body=step).replace("-N1", "-N1 -w n4").replace("-N2", "-N2 --ntasks-per-node=2 -w n1,n3")
    )
    done = subprocess.run(["sbatch", "--wait", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    nodes, printed = zip(*((tmp_path / f"task-{procid}").read_text().splitlines() for procid in range(5)), strict=True)
    assert nodes == ("n4", "n1", "n1", "n3", "n3")
    found = [eval(line) for line in printed]
    assert [allocation.procid for allocation in found] == [0, 1, 2, 3, 4]
    assert {allocation.tasks for allocation in found} == {(1, 4)}
    assert {allocation.components for allocation in found} == {(("n4",), ("n1", "n3"))}
