"""Whole runs of a known shape with random weights, on some GPUs of this machine."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.layout_runs import LayoutOfTwo, ends_of, environment
from bench.model_dir import known_shape
from bench.random_weights import write_random_model
from common.waiting import wait_until
from core.run_dir.progress import ProgressReader
from tests.support.tiny_runs import write_tokenizer

ROOT = Path(__file__).parents[1]
DEADLINE_S = 500.0
WORDS = "abcdefghijklmnopqrstuvwxyz"
REWARD = '''
import random


def reward(sample):
    """A coin: all samples of a group alike would not be trained on."""
    return random.random()
'''


def write_model(name: str, folder: Path) -> Path:
    """Write a model directory of a known shape, or NAME:LAYERS of it, with random weights and a small tokenizer."""
    directory = write_random_model(known_shape(name), folder)
    write_tokenizer(directory)
    return directory


def write_run(folder: Path, model: Path, prompt: int, sections: Mapping[str, Mapping[str, Any]]) -> Path:
    """A run file with prompts of about `prompt` tokens, most of them one letter each; `sections` say all else."""
    folder.mkdir(parents=True)
    letters = [" ".join(WORDS[(row + place) % 26] for place in range(prompt * 5 // 8)) for row in range(512)]
    (folder / "data.jsonl").write_text("".join(json.dumps({"prompt": text, "label": ""}) + "\n" for text in letters))
    (folder / "reward.py").write_text(REWARD)
    run: dict[str, Any] = {
        "name": "shape",
        "model": {"path": str(model)},
        "data": {"path": "data.jsonl", "max_prompt_tokens": 2 * prompt},
        "reward": {"type": "python", "path": "reward.py:reward"},
        "placement": {"start_timeout_s": 400},
        "checkpoint": {"interval": 0, "every": None, "save_hf": "off"},
        "logging": {"tensorboard": False},
    }
    for name, changes in sections.items():
        run[name] = {**run.get(name, {}), **changes}
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    return file


def run(file: Path, gpus: str, steps: int) -> list[dict[str, float]]:
    """Run it on these GPUs until `steps` have ended, then kill it: saving would take longer. Returns their metrics.

    Raises:
        RuntimeError: with the ends of its logs, where it ended before, or took more than DEADLINE_S.
    """
    run_dir, log = file.parent / "out", file.parent / "log"
    command = [sys.executable, "-m", "launchers", "run", str(file), "--run-dir", str(run_dir)]
    env = environment(LayoutOfTwo(gpus=gpus), "cuda")
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=ROOT)
    try:
        wait_until(lambda: process.poll() is not None or len(_steps(run_dir)) >= steps, DEADLINE_S)
    finally:
        process.kill()
        process.wait(30)
    found = _steps(run_dir)
    if len(found) < steps:
        ends = ends_of([log, *sorted(run_dir.glob("attempts/1/*.log"))])
        raise RuntimeError(f"{file}: {len(found)} of {steps} steps\n{ends}")
    return found


def _steps(run_dir: Path) -> list[dict[str, float]]:
    events = ProgressReader(run_dir / "progress.jsonl").new_events()
    return [event["metrics"] for event in events if event["event"] == "step"]


def syncs(folder: Path) -> list[float]:
    """Seconds of each sync of the run in `folder`, without what left the GPUs for it, from the first rank's log."""
    text = (folder / "out" / "attempts" / "1" / "trainer-0.log").read_text()
    moved: dict[str, str] = {}
    for step, seconds in re.findall(r"residency=sync step=(\d+) seconds=([\d.]+)", text):
        moved.setdefault(step, seconds)
    phases = re.findall(r"phase=sync step=(\d+) seconds=([\d.]+)", text)
    return [float(seconds) - float(moved.get(step, 0.0)) for step, seconds in phases]


def medians(steps: list[dict[str, float]]) -> dict[str, float]:
    """Median of every metric in seconds, over all steps but the first."""
    later = steps[1:]
    names = [name for name in later[0] if name.startswith("perf/") and name.endswith("_time")]
    return {name.removeprefix("perf/"): statistics.median(step[name] for step in later) for name in names}
