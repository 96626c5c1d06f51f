"""scancel at any moment leaves no process, no lock, and a run that can be submitted again."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster, wait_until
from tests.support.slurm_runs import prepare, processes_of, run, site_of, submit, wait_for
from tests.support.tiny_runs import events

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow, pytest.mark.timeout(1200)]

TIMES = 20 if os.environ.get("EBBTIDE_TESTS") == "all" else 8  # `make test-all` takes all
LATEST_START_S = 18.0  # most moments lie while a run starts
LATEST_LOOP_S = 4.0  # every fourth after the loop has begun
GONE_S = 15.0


def test_scancel_at_random_times(cluster: Cluster, tmp_path: Path) -> None:
    run_dir, run_file = tmp_path / "out", prepare(tmp_path, rollout={"num_rollout": 2000})
    chance = random.Random(7)
    for number in range(TIMES):
        job = submit(run_file, run_dir) if number == 0 else resubmit(run_dir)
        looping = number % 4 == 3
        if looping:
            began = len(events(run_dir, "begin"))
            wait_for(lambda began=began: len(events(run_dir, "begin")) > began, 180, run_dir)  # type: ignore[misc]
        moment = chance.uniform(0.0, LATEST_LOOP_S if looping else LATEST_START_S)
        time.sleep(moment)
        cluster.run("scancel", job)
        wait_until(
            lambda: not processes_of(cluster),
            GONE_S,
            f"all processes to be gone after scancel {number} at {moment:.1f} s",
            lambda: str(processes_of(cluster)),
        )
        wait_until(lambda: not cluster.live_jobs(), 30, "the job to leave the queue")
    before = len(events(run_dir, "step"))
    assert before > 0
    job = resubmit(run_dir)
    wait_for(lambda: len(events(run_dir, "step")) > before, 180, run_dir)  # no lock, no leftover stops it
    cluster.run("scancel", job)


def resubmit(run_dir: Path) -> str:
    """Go on with the run in a new job."""
    said = run("submit", "--resume", str(run_dir), *site_of(run_dir))
    return said.partition("job: ")[2].split()[0]
