"""Made-up run directories for tests of `ebbtide report`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from core.trajectory import step_path, write_step
from tests.support.histories import BEGAN, began, ended, lines
from tests.support.step_samples import make_record, make_samples

PHASES = {"sync": 1.0, "rollout": 6.0, "score": 0.5, "update": 3.0}
SETTINGS = {
    "name": "made-up",
    "model": {"path": "/models/tiny"},
    "rollout": {"num_rollout": 4, "rollout_batch_size": 4, "n_samples_per_prompt": 4, "max_response_tokens": 40},
    "train": {"global_batch_size": 16, "lr": 1e-5},
}


def metrics(step: int, num_steps: int) -> dict[str, float]:
    """Values of a run that learns."""
    done = step / max(1, num_steps - 1)
    return {
        "rollout/raw_reward": 0.2 + 0.6 * done + 0.02 * math.sin(step),
        "rollout/response_len/mean": 20.0 + step,
        "rollout/response_len/min": 3.0,
        "rollout/response_len/max": 40.0,
        "rollout/truncated_ratio": 0.5,
        "rollout/failed_ratio": 0.0,
        "train/entropy_loss": 1.8 - done,
        "train/train_rollout_logprob_abs_diff": 1e-3 * 10 ** (-2 * done),
        "train/own_metric": float(step % 3),
        "perf/step_time": sum(PHASES.values()),
    }


def events(num_steps: int, wanted: int) -> list[dict[str, Any]]:
    """What the progress file has after `num_steps` of the `wanted` steps: an evaluation at each end."""
    now = BEGAN + 1010
    found: list[dict[str, Any]] = [
        {"event": "begin", "time": now, "step": 0, "num_steps": wanted, "eval_prompts": {"kept_out": 20}}
    ]
    for step in range(num_steps):
        for phase, seconds in PHASES.items():
            found.append({"event": "phase", "time": now, "phase": phase, "step": step})
            now += seconds
        found.append({"event": "step", "time": now, "step": step, "metrics": metrics(step, wanted)})
    for step, accuracy in {0: 0.1, num_steps: 0.9}.items():
        found.append({"event": "eval", "time": now, "step": step, "results": {"kept_out": {"accuracy": accuracy}}})
    return [*found, {"event": "end", "time": now, "step": num_steps}] if num_steps == wanted else found


def write_report_run(
    path: Path, num_steps: int = 4, wanted: int | None = None, settings: Mapping[str, Any] = SETTINGS, stored: int = 4
) -> RunDirectory:
    """A run that has done `num_steps` of the `wanted` steps, and is complete if these are all.

    Args:
        stored: how many steps have a step file, from the first.
    """
    directory, wanted = RunDirectory(path), num_steps if wanted is None else wanted
    path.mkdir(parents=True, exist_ok=True)
    directory.run_file.write_text(yaml.safe_dump(dict(settings)))
    lines(directory.progress, events(num_steps, wanted))
    ends = [ended(1, "complete", steps_done=num_steps)] if num_steps == wanted else []
    lines(directory.ledger, [began(1, job=None), *ends])
    for step in range(min(stored, num_steps)):
        write_step(step_path(path, step), make_record(make_samples(4, 4, seed=step), step))
    log = AttemptFolder(directory.attempt(1)).trainer_log(0)
    log.parent.mkdir(parents=True)
    log.write_text(
        "2026-11-29 07:56:37,111 INFO core.loop.phases phase=sync step=0 seconds=1.658 peak_rss_gib=3.61\n"
        "2026-11-29 07:56:38,111 INFO core.residency.machine residency=update step=0 seconds=0.100 used_gib=10.00->"
        "41.50 plan_gib=40.00..60.25 held_gib=41.00 own_gib=41.20 holds='trainer: parameters 1.00 GiB'\n"
        "2026-11-29 07:57:15,491 INFO core.loop.phases phase=update step=0 seconds=7.706 peak_rss_gib=3.78\n"
    )
    return directory
