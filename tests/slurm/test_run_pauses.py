"""Runs that are stopped by the cluster and go on: time limit, preemption, requeue. No step is lost, no loss differs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster
from tests.support.slurm_runs import (
    attempts,
    complete,
    hold,
    hold_phases,
    local_losses,
    losses,
    prepare,
    run,
    submit,
    tell,
    wait_for,
    wait_for_phase,
)
from tests.support.tiny_runs import events

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(900)]

MANY = 40  # steps: more than two minutes hold when every step takes 2.4 s
SLOW_REWARD = '''
import time


def reward(sample):
    """A step of 16 samples takes 2.4 s."""
    time.sleep(0.15)
    return (sum(map(ord, sample.response_text)) % 101) / 100
'''
FEW = {"num_rollout": 16}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The longest of the runs; the others are its beginning."""
    return local_losses(tmp_path_factory.mktemp("local"), rollout={"num_rollout": MANY})


def begins(found: dict[int, float], uninterrupted: dict[int, float], num_steps: int) -> bool:
    """Bit for bit."""
    return found == {step: uninterrupted[step] for step in range(num_steps)}


def test_the_time_limit(cluster: Cluster, tmp_path: Path, uninterrupted: dict[int, float]) -> None:
    """A job of 2 minutes with work for longer: it saves, requeues itself, and finishes."""
    run_dir = tmp_path / "out"
    slurm = {"time": "2", "signal_s": 10}
    run_file = prepare(tmp_path, rollout={"num_rollout": MANY}, slurm=slurm)
    (tmp_path / "reward.py").write_text(SLOW_REWARD)
    job = submit(run_file, run_dir)
    complete(cluster, job, run_dir, 600)
    ends = [attempt.how for attempt in attempts(run_dir)]
    assert ends[-1] == "complete"
    assert set(ends[:-1]) == {"timeout"}
    assert sum(attempt.steps_done or 0 for attempt in attempts(run_dir)) == MANY  # none twice
    assert begins(losses(run_dir), uninterrupted, MANY), tell(run_dir)


@pytest.mark.skipif(os.environ.get("EBBTIDE_TESTS") != "all", reason="three minutes: make test-all")
def test_a_step_longer_than_the_warning(cluster: Cluster, tmp_path: Path) -> None:
    """Killed amid its second step, an attempt is told why, with the number to set; as it had saved, it is requeued."""
    run_dir, job = held_in_an_update(tmp_path, {"time": "2", "signal_s": 15})
    wait_for(lambda: any(attempt.how for attempt in attempts(run_dir)), 240, run_dir)
    hold(tmp_path / "run.yaml", None)
    complete(cluster, job, run_dir, 300)
    first, second = attempts(run_dir)
    assert (first.how, first.saved_step, second.how) == ("timeout", 1, "complete"), tell(run_dir)
    assert str(first.cause).startswith("the time limit (slurm.time) came in update of step 1, which had begun ")
    assert "found slurm.signal_s: 15; wanted as long as a step and its checkpoint: set it to " in str(first.cause)


def test_a_preemption_that_does_not_wait_for_the_step(cluster: Cluster, tmp_path: Path) -> None:
    """A warning, and then the end, amid an update: it is no stop of somebody's, so the job goes on by itself."""
    run_dir, job = held_in_an_update(tmp_path, {})
    cluster.run("scancel", "--signal=USR2", job)
    warned = "SIGUSR2: pausing before the next step (preempted)"
    wait_for(lambda: warned in (run_dir / "attempts/1/agent-0.log").read_text(), 30, run_dir)
    cluster.run("scancel", "--signal=TERM", job)
    wait_for(lambda: any(attempt.how for attempt in attempts(run_dir)), 60, run_dir)
    hold(tmp_path / "run.yaml", None)
    complete(cluster, job, run_dir, 300)
    first, second = attempts(run_dir)
    assert (first.how, first.saved_step, second.how) == ("preempted", 1, "complete"), tell(run_dir)
    assert str(first.cause).startswith("the nodes were taken in update of step 1, ")


def held_in_an_update(tmp_path: Path, slurm: dict[str, object]) -> tuple[Path, str]:
    """A submitted run that stays in the update of its second step: run directory and job."""
    run_file = prepare(tmp_path, num_nodes=2, slurm=slurm)
    hold_phases(run_file)
    hold(run_file, "update step=1")
    job = submit(run_file, tmp_path / "out")
    wait_for_phase(tmp_path / "out", "update step=1")
    return tmp_path / "out", job


def test_a_preemption_with_a_warning(cluster: Cluster, tmp_path: Path, uninterrupted: dict[int, float]) -> None:
    """`scancel --signal`: as a preemption that announces itself."""
    run_dir = disturbed(cluster, tmp_path, "scancel", "--signal=USR2")
    assert [attempt.how for attempt in attempts(run_dir)] == ["preempted", "complete"]
    assert sum(attempt.steps_done or 0 for attempt in attempts(run_dir)) == FEW["num_rollout"]
    assert begins(losses(run_dir), uninterrupted, FEW["num_rollout"]), tell(run_dir)


def test_a_requeue_without_one(cluster: Cluster, tmp_path: Path, uninterrupted: dict[int, float]) -> None:
    """`scontrol requeue`: killed in the middle of a step, which is done again, with the same result."""
    run_dir = disturbed(cluster, tmp_path, "scontrol", "requeue")
    assert attempts(run_dir)[-1].how == "complete"
    assert attempts(run_dir)[0].how in ("interrupted", "lost")
    assert begins(losses(run_dir), uninterrupted, FEW["num_rollout"]), tell(run_dir)


def disturbed(cluster: Cluster, tmp_path: Path, *command: str) -> Path:
    """A few steps, with a command of Slurm's to the job in the third; the run is complete afterwards."""
    run_dir = tmp_path / "out"
    job = submit(prepare(tmp_path, rollout=FEW), run_dir)
    wait_for_phase(run_dir, "rollout step=2")
    cluster.run(*command, job)
    complete(cluster, job, run_dir)
    return run_dir


def test_a_finished_run_that_is_requeued_ends_at_once(cluster: Cluster, tmp_path: Path) -> None:
    run_dir = tmp_path / "out"
    job = submit(prepare(tmp_path), run_dir)
    complete(cluster, job, run_dir)
    cluster.run("scontrol", "requeue", job)
    cluster.wait_for_state(job, ["PENDING", "RUNNING"])
    cluster.wait_for_state(job, ["COMPLETED"])
    assert len(attempts(run_dir)) == 1
    assert len(events(run_dir, "end")) == 1
    assert "complete" in run("status", str(run_dir))
