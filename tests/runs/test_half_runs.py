"""`ebbtide eval` and `ebbtide replay` on a finished run: a real engine without a trainer, and real trainers alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from core.trajectory import evaluation_path, read_step, step_path
from launchers.show.replayed import is_equal, metric_names
from tests.support.tiny_runs import ebbtide, events
from tests.test_docs import commands

pytestmark = pytest.mark.run


def documented(command: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in commands() if line.startswith(f"ebbtide {command} ")]


def replay(run: Path, folder: Path, *options: str) -> tuple[str, Path]:
    done = ebbtide("replay", str(run), "--run-dir", str(folder), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


def test_an_evaluation_by_itself_is_the_one_that_the_run_made(straight: Path, tmp_path: Path) -> None:
    """Of the model after two steps: the same samples, and so the same rates; no process has trained anything."""
    (line,) = documented("eval")
    assert line == ["eval", "runs/NAME", "--step", "2"]
    done = ebbtide("eval", str(straight), *line[2:], "--run-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = {event["step"]: event["results"] for event in events(straight, "eval")}[2]
    (event,) = events(tmp_path / "out", "eval")
    assert (event["step"], event["results"]) == (2, wanted)
    written = json.loads((tmp_path / "out" / "evaluation.jsonl").read_text())
    assert (written["step"], written["results"]) == (2, wanted)
    assert written["model"] == str(straight / "hf_steps" / "step_000002")
    with (
        h5py.File(evaluation_path(straight, "held_out", 2)) as before,
        h5py.File(evaluation_path(tmp_path / "out", "held_out", 2)) as now,
    ):
        for name in ("response_tokens", "logprobs_engine", "reward", "weight_version"):
            np.testing.assert_array_equal(before[name][...], now[name][...], name)
    assert f"{wanted['held_out']['accuracy']:.3f}" in done.stdout
    assert not (tmp_path / "out" / "checkpoints").exists()
    shown = ebbtide("inspect", str(tmp_path / "out"), "--eval", "held_out")
    assert shown.returncode == 0, shown.stderr
    assert "accuracy" in shown.stdout


def test_a_replayed_step_is_the_recorded_one_to_the_last_bit(straight: Path, tmp_path: Path) -> None:
    told, out = replay(straight, tmp_path / "out", "--step", "3", "--sample", "0.1")
    before, now = read_step(step_path(straight, 3)), read_step(step_path(out, 3))
    assert {"train/loss", "train/grad_norm", "train/pg_clipfrac"} <= set(metric_names(before, now))
    assert is_equal(before, now)
    np.testing.assert_array_equal(before.logprobs_old.values, now.logprobs_old.values)
    assert "step 3, recorded and replayed: equal to the last bit" in told
    assert len(re.findall(r"^ +\d+ +['\"]", told, re.MULTILINE)) == len(before.response_tokens[1])


def test_another_clip_range_changes_what_it_should(straight: Path, tmp_path: Path) -> None:
    """Of a step before the first checkpoint: the steps up to it are the run's own, from the first model on."""
    _, out = replay(straight, tmp_path / "out", "--step", "1", "--set", "algorithm.eps_clip=0.001")
    before, now = (read_step(step_path(run, 1)) for run in (straight, out))
    assert is_equal(read_step(step_path(straight, 0)), read_step(step_path(out, 0)))
    np.testing.assert_array_equal(before.logprobs_old.values, now.logprobs_old.values)
    np.testing.assert_array_equal(before.advantage, now.advantage)
    assert now.metrics["train/pg_clipfrac"] > before.metrics["train/pg_clipfrac"]
    assert now.metrics["train/grad_norm"] != before.metrics["train/grad_norm"]


def test_what_cannot_be_replayed_is_refused(straight: Path) -> None:
    other = ebbtide("replay", str(straight), "--step", "3", "--set", "rollout.temperature=0.5")
    assert other.returncode == 2
    assert "found --set rollout.temperature=0.5; wanted a key of algorithm, critic, train, placement" in other.stderr
    missing = ebbtide("replay", str(straight), "--step", "9")
    assert missing.returncode != 0
    assert "wanted one of steps [0, 1, 2, 3]" in missing.stderr
