"""A node dies, in every phase: the attempt ends everywhere, the record names the node, the next does without it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.waiting import wait_until
from tests.slurm_cluster import Cluster
from tests.support.slurm_runs import (
    attempts,
    complete,
    failure,
    hold,
    hold_phases,
    losses,
    prepare,
    processes_of,
    submit,
    tell,
    wait_for,
    wait_for_phase,
)
from tests.support.tiny_runs import times_entered

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

END_DEADLINE_S = 60.0


@pytest.mark.parametrize(
    "phases",
    [("start", "sync step=1"), ("rollout step=1", "score step=1"), ("update step=1", "save step=1")],
    ids=["start, sync", "rollout, score", "update, save"],
)
def test_a_node_lost(phases: tuple[str, ...], cluster: Cluster, tmp_path: Path) -> None:
    """Four nodes, two of them in use; twice the second one dies, each time in another phase."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, num_nodes=2)
    hold_phases(run_file)
    job = submit(run_file, run_dir)
    for attempt, phase in enumerate(phases, 1):
        victim = lose_second_node(cluster, run_file, run_dir, attempt, phase)
        record = failure(run_dir, attempt)
        assert (record.role, record.name) == ("node", victim), record
        assert record.at.phase.startswith(phase.partition(" ")[0]), record
    complete(cluster, job, run_dir, 240)
    history = attempts(run_dir)
    assert [a.how for a in history] == ["node_failure"] * 2 + ["complete"]
    lost = [a.failed_nodes[0] for a in history[:2]]
    for number, attempt_ in enumerate(history):
        assert not set(lost[:number]) & set(attempt_.nodes), history
    assert sorted(losses(run_dir)) == [0, 1, 2, 3]


def lose_second_node(cluster: Cluster, run_file: Path, run_dir: Path, attempt: int, phase: str) -> str:
    """Kill it in that phase, and wait until nothing of the attempt runs anywhere. Returns its name."""
    hold(run_file, phase)
    before = times_entered(run_dir, phase)
    wait_for(lambda: len(attempts(run_dir)) == attempt, 120, run_dir)
    if phase == "start":
        engine_log = run_dir / "attempts" / str(attempt) / "node1-engine0.0.log"
        wait_for(engine_log.exists, 60, run_dir)
    else:
        wait_for_phase(run_dir, phase, after=before)
    nodes = attempts(run_dir)[-1].nodes
    victim, survivor = nodes[1], nodes[0]
    cluster.kill_node(victim)
    began = time.monotonic()
    wait_for(lambda: attempts(run_dir)[attempt - 1].how is not None, END_DEADLINE_S, run_dir)
    gone = wait_until(lambda: not processes_of(cluster, (survivor,)), END_DEADLINE_S)
    assert gone, processes_of(cluster, (survivor,))
    assert time.monotonic() - began < END_DEADLINE_S
    hold(run_file, None)
    return victim


def test_the_first_node_lost(cluster: Cluster, tmp_path: Path) -> None:
    """It serves the store and runs the batch script: the others end by themselves, and Slurm requeues the job."""
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, num_nodes=2)
    hold_phases(run_file)
    hold(run_file, "rollout step=1")
    job = submit(run_file, run_dir)
    wait_for_phase(run_dir, "rollout step=1")
    leader, other = attempts(run_dir)[0].nodes
    cluster.kill_node(leader)
    assert wait_until(lambda: not processes_of(cluster, (other,)), END_DEADLINE_S), processes_of(cluster)
    record = failure(run_dir, 1)
    assert (record.role, record.name) == ("node", leader), record
    hold(run_file, None)
    complete(cluster, job, run_dir, 300)
    history = attempts(run_dir)
    assert [attempt.how for attempt in history] == ["node_failure", "complete"], tell(run_dir)
    assert history[0].failed_nodes == (leader,), tell(run_dir)
    assert leader not in history[1].nodes, tell(run_dir)
