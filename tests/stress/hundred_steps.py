"""A long run with everything that chooses groups, disturbed; then every row that was drawn is accounted for.

    python -m tests.stress.hundred_steps --steps 100 --deaths 4
    python -m tests.stress.hundred_steps --steps 100 --deaths 4 --slurm       # as root

The run over-samples, filters and carries over. Its engine is killed in the middle of rollouts, and half-way the run is
interrupted and resumed, or, as a job of a cluster of its own, requeued. Its rows are in order, so a place in the data
says a row and an epoch. What has been drawn is then held against what step files and the last checkpoint have: each
group was trained, rejected, or is carried over, and exactly one of these.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from common.waiting import wait_until
from tests.stress.account import GROUP, NUM_ROWS, account_of
from tests.stress.places import MOMENT_S, LongRun, kill_engine, place_of
from tests.support.slurm_runs import attempts, tell
from tests.support.tiny_runs import entered, events, write_run

BATCH, UNDER_WAY = 3, 6  # groups trained in a step, and begun
FILTER = """
def keep(group):
    return group[0].row % 5 > 0 or "every fifth"
"""


def write(folder: Path, num_steps: int) -> Path:
    """The run file and what it needs, with a site file beside it."""
    run_file = write_run(
        folder,
        data={"shuffle": False},
        rollout={
            **{"num_rollout": num_steps, "rollout_batch_size": BATCH, "n_samples_per_prompt": GROUP},
            **{"over_sampling_batch_size": UNDER_WAY, "filter": "keep.py:keep", "filter_rounds": 3},
            **{"carry_over_tokens": 3, "carry_over_steps": 3, "request_timeout_s": 60},
        },
        train={"global_batch_size": BATCH * GROUP, "num_steps_per_rollout": 1},
        placement={"device": "cpu", "engine_restarts": 50, "start_timeout_s": 600},
        checkpoint={"interval": 5, "save_hf": "off"},
        slurm={"max_failures": 50, "time": "60"},
    )
    (folder / "keep.py").write_text(FILTER)
    rows = [{"prompt": f"say {['one', 'two', 'three'][row % 3]} {row}", "label": str(row)} for row in range(NUM_ROWS)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "site.yaml").write_text(yaml.safe_dump({"shared_filesystems": [str(folder)]}))
    return run_file


def play(folder: Path, num_steps: int, deaths: int, seed: int, slurm: bool) -> dict[str, Any]:
    """Run, disturb, go on; the line of the result."""
    run_file, run_dir = write(folder, num_steps), folder / "out"
    began = time.monotonic()
    with place_of(run_file, slurm) as run:
        run.begin()
        disturb(run, run_dir, num_steps, deaths, random.Random(seed))
        code = run.finish(MOMENT_S + 10.0 * num_steps)
    told = {"exit code": code, "by": run.interruption, "seconds": round(time.monotonic() - began)}
    return {**told, **told_of(run_dir, num_steps)}


def disturb(run: LongRun, run_dir: Path, num_steps: int, deaths: int, chance: random.Random) -> None:
    """Kill the engine in rollouts of other steps than the middle one, in which the run is interrupted."""
    half = num_steps // 2
    moments = chance.sample([step for step in range(1, num_steps) if step != half], deaths)
    for step in sorted([*moments, half]):
        _reach(run, run_dir, step)
        if step == half:
            run.interrupt()
        else:
            time.sleep(chance.uniform(0.0, 0.3))
            kill_engine(run)


def told_of(run_dir: Path, num_steps: int) -> dict[str, Any]:
    """What the run directory has of it all."""
    account = account_of(run_dir)
    steps = events(run_dir, "step")
    told = {event["step"]: event["metrics"] for event in steps}  # of a repeated step the last
    return {
        "steps": len(told),
        "steps repeated": len(steps) - len(told),
        "engine deaths": _deaths(run_dir),
        "attempts": [attempt.how for attempt in attempts(run_dir)],
        "groups drawn": account.drawn,
        "trained": sum(account.trained.values()),
        "rejected": account.rejected,
        "carried over at the end": len(account.carried),
        "trained in a later step than begun": int(sum(one["rollout/carried/trained"] for one in told.values())),
        "violations": list(account.violations(BATCH * num_steps)),
    }


def _reach(run: LongRun, run_dir: Path, step: int) -> None:
    """Until a rollout of this step has begun."""

    def reached() -> bool:
        phases = [entered(event) for event in events(run_dir, "phase")]
        return f"rollout step={step}" in phases or run.has_ended()

    assert wait_until(reached, MOMENT_S), f"step {step} was not reached\n{tell(run_dir)}"
    assert not run.has_ended(), tell(run_dir)


def _deaths(run_dir: Path) -> int:
    """Ends of engines by a signal that the agents tell of."""
    logs = (run_dir / "attempts").glob("[0-9]*/agent-0.log")
    return sum(log.read_text().count("killed by signal 9 (SIGKILL): restarting") for log in logs)


def main() -> None:
    """Print the result as JSON. Exit code 1: something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.hundred_steps", description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=4, help="how often the engine is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--slurm", action="store_true", help="as a job of a cluster of its own, requeued; as root")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ebbtide-hundred.") as folder:
        line = play(Path(folder), options.steps, options.deaths, options.seed, options.slurm)
    print(json.dumps(line))
    sys.exit(1 if line["violations"] or line["exit code"] else 0)


if __name__ == "__main__":
    main()
