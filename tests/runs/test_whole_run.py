"""Whole runs from the run file to the last checkpoint: real trainers, a real engine, a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.waiting import wait_until
from core.trajectory import step_path
from tests.tiny_runs import descendants, ebbtide, events, losses, start_ebbtide, survivors, write_run

pytestmark = pytest.mark.run
ROOT = Path(__file__).parents[2]

EQUAL_AFTER_RESUME = ("response_tokens", "response_offsets", "prompt_tokens", "reward", "advantage", "logprobs_old")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of four steps without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    done = ebbtide("run", str(write_run(folder)), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resume" not in done.stdout
    (folder / "out" / "stdout.txt").write_text(done.stdout)
    return folder / "out"


def read(run_dir: Path, step: int, name: str) -> np.ndarray:
    with h5py.File(step_path(run_dir, step)) as file:
        return np.asarray(file[name][...])


def test_every_step_is_recorded_and_changes_the_model(straight: Path) -> None:
    assert sorted(losses(straight)) == [0, 1, 2, 3]
    assert len(set(losses(straight).values())) == 4
    versions = {step: set(read(straight, step, "weight_version")) for step in range(4)}
    assert versions == {step: {f"step{step}".encode()} for step in range(4)}
    with h5py.File(step_path(straight, 3)) as file:
        assert file.attrs["dtype"] == "float32"  # what was used, not the run file's "auto"


def test_engine_and_trainer_agree_before_the_first_step_and_after_each_sync(straight: Path) -> None:
    for event in events(straight, "step"):
        assert event["metrics"]["train/train_rollout_logprob_abs_diff"] < 1e-5
        assert event["metrics"]["train/train_rollout_logprob_abs_diff_max"] < 1e-3


def test_what_a_run_leaves(straight: Path) -> None:
    for name in (
        "run.yaml",
        "ledger.jsonl",
        "tensorboard",
        "attempts/1/trainer-0.log",
        "attempts/latest",
        "hf/config.json",
    ):
        assert (straight / name).exists(), name
    assert sorted(p.name for p in (straight / "checkpoints").iterdir()) == ["step_000003", "step_000004"]
    ended = json.loads((straight / "ledger.jsonl").read_text().splitlines()[-1])
    assert (ended["attempt"], ended["how"]) == (1, "complete")
    shown = (straight / "stdout.txt").read_text()
    assert "step   3" in shown
    assert f"ebbtide inspect {straight}" in shown


def test_tensorboard_has_the_metrics_of_every_step_under_their_names(straight: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(straight / "tensorboard"))
    board.Reload()
    names = {
        *("rollout/raw_reward", "rollout/response_len/mean", "rollout/truncated_ratio", "rollout/zero_std/count"),
        *("train/loss", "train/pg_clipfrac", "train/ppo_kl", "train/grad_norm", "train/lr"),
        *("perf/rollout_time", "perf/train_time", "perf/update_weights_time", "perf/step_time"),
        "perf/tokens_per_gpu_per_sec",
    }
    logged = set(board.Tags()["scalars"])
    assert names <= logged
    documented = re.findall(r"`((?:rollout|train|perf)/[\w/]+)`", (ROOT / "docs" / "rewards-and-data.md").read_text())
    assert {name for name in logged if not name.startswith("eval/")} - set(documented) == set()
    shown = {event.step: event.value for event in board.Scalars("train/loss")}
    assert shown == pytest.approx(losses(straight), rel=1e-6)


def test_the_final_model_is_the_trained_one(straight: Path) -> None:
    """What save_hf wrote gives, with transformers, what the trainer's next sync would have given the engine."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    before = load_file(straight.parent / "model" / "model.safetensors")
    after = AutoModelForCausalLM.from_pretrained(straight / "hf", dtype=torch.float32).state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert changed == list(before)


def test_inspect_shows_samples(straight: Path) -> None:
    shown = ebbtide("inspect", str(straight), "--step", "2", "--best", "1")
    assert shown.returncode == 0, shown.stderr
    assert "reward" in shown.stdout
    assert "advantage" in shown.stdout


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "out"
    command = start_ebbtide("run", str(write_run(tmp_path)), "--run-dir", str(run_dir), log=tmp_path / "log")
    manifest = run_dir / "checkpoints" / "step_000002" / "manifest.json"
    assert wait_until(lambda: manifest.exists() or command.poll() is not None, 300)
    assert command.poll() is None, (tmp_path / "log").read_text()
    family = descendants([command.pid])
    for process in family:
        process.kill()
    command.wait(30)
    assert wait_until(lambda: not survivors(family), 30)
    done = ebbtide("resume", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert events(run_dir, "begin")[-1]["step"] == 2
    assert losses(run_dir) == losses(straight)
    for step in range(4):
        for name in EQUAL_AFTER_RESUME:
            np.testing.assert_array_equal(read(run_dir, step, name), read(straight, step, name), f"{step} {name}")


def test_a_finished_run_resumed_ends_at_once(straight: Path) -> None:
    done = ebbtide("resume", str(straight))
    assert done.returncode == 0
    assert "complete" in done.stdout
    assert not (straight / "attempts" / "2").exists()
