"""scancel at any moment leaves no process, no lock, and a run that can be submitted again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.slurm.slurm_runs import attempts, ended, prepare, processes_of, run, site_of, submit, wait_for
from tests.slurm_cluster import Cluster, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

TIMES = 20
LONGEST_S = 26.0  # by then a tiny run turns its loop
GONE_S = 15.0


def test_scancel_at_twenty_random_times(cluster: Cluster, tmp_path: Path) -> None:
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, rollout={"num_rollout": 500})
    chance = random.Random(7)
    moments = [chance.uniform(0.0, LONGEST_S) for _ in range(TIMES)]
    for number, moment in enumerate(moments):
        job = submit(run_file, run_dir) if number == 0 else resubmit(run_dir)
        time.sleep(moment)
        cluster.run("scancel", job)
        wait_until(
            lambda: not processes_of(cluster),
            GONE_S,
            f"all processes to be gone after scancel {number} at {moment:.1f} s",
            lambda: str(processes_of(cluster)),
        )
        wait_until(lambda: not cluster.live_jobs(), 30, "the job to leave the queue")
    assert any((attempt.steps_done or 0) > 0 for attempt in attempts(run_dir))
    job = resubmit(run_dir)
    before = sum(attempt.steps_done or 0 for attempt in attempts(run_dir))
    wait_for(lambda: steps_done(run_dir) > before or ended(run_dir), 120, run_dir)
    cluster.run("scancel", job)


def resubmit(run_dir: Path) -> str:
    """Go on with the run in a new job."""
    said = run("submit", "--resume", str(run_dir), *site_of(run_dir))
    return said.partition("job: ")[2].split()[0]


def steps_done(run_dir: Path) -> int:
    from tests.tiny_runs import events

    return len(events(run_dir, "step"))
