"""Time from `ebbtide submit` to the first samples on a real Slurm cluster, beside a bare srun that starts the same.

The cluster is the tests' own: nodes in namespaces of this machine (root). The run is a tiny model on one node, on the
CPU path; the two take turns. What is compared is start-up: checks, sbatch, gate, torchrun, agent. Both start the same
engine and load the same model with the same trainer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.record import report  # noqa: E402
from tests.slurm_cluster import Cluster, Settings, wait_until  # noqa: E402
from tests.support.slurm_runs import prepare, site_of  # noqa: E402
from tests.support.tiny_runs import EBBTIDE, entered, events  # noqa: E402

REPETITIONS = 4  # and one to warm up


def ours(cluster: Cluster, folder: Path) -> dict[str, float]:
    """Seconds from the command to: its return, the attempt's begin, the loop's begin, the first rollout's samples."""
    run_file, run_dir = prepare(folder), folder / "out"
    began = time.time()
    cluster.run(EBBTIDE, "submit", str(run_file), "--run-dir", str(run_dir), *site_of(run_file))
    returned = time.time()
    wait_until(lambda: bool(events(run_dir, "end")), 240.0, "the run to end")
    attempt = json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[0])
    phases = {entered(event): event["time"] for event in events(run_dir, "phase")}
    loop = events(run_dir, "begin")[0]["time"]
    wait_until(lambda: not cluster.live_jobs(), 60.0, "the job to end")
    return {
        "submit returned": returned - began,
        "attempt began": attempt["began"] - began,
        "loop began": loop - began,
        "first samples": phases["score step=0"] - began,
    }


def by_hand(cluster: Cluster, folder: Path) -> float:
    """Seconds from srun to the first samples."""
    run_file = prepare(folder)
    env = {**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)}
    command = ["srun", "-N1", "-n1", "--cpu-bind=none", sys.executable, str(ROOT / "bench" / "by_hand.py")]
    began = time.time()
    done = subprocess.run(
        [*command, str(run_file), str(folder)], env=env, capture_output=True, text=True, timeout=240, check=True
    )
    return float(done.stdout.split()[-1]) - began


def main() -> None:
    """Measure, print, write results/submit.json."""
    cluster = Cluster.start(Settings(folder="", num_nodes=2), owner=os.getpid())
    os.environ.update(cluster.environment)
    seconds: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for repetition in range(REPETITIONS + 1):
                found = {
                    f"ebbtide, {name}": value for name, value in ours(cluster, Path(folder, f"a{repetition}")).items()
                }
                found["bare srun, first samples"] = by_hand(cluster, Path(folder, f"b{repetition}"))
                for name, value in found.items() if repetition else ():
                    seconds.setdefault(name, []).append(value)
    finally:
        cluster.stop()
    median = {name: statistics.median(values) for name, values in seconds.items()}
    extra = median["ebbtide, first samples"] - median["bare srun, first samples"]
    report("submit", seconds, extra_seconds=extra)


if __name__ == "__main__":
    main()
