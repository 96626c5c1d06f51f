"""Whole runs from the run file to the last checkpoint: real trainers, a real engine, a tiny model."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.waiting import wait_until
from core.trajectory import step_path
from tests.support.faulty_runs import wait_for_phase
from tests.support.tiny_runs import (
    descendants,
    ebbtide,
    events,
    losses,
    start_ebbtide,
    survivors,
    times_entered,
    write_run,
)

pytestmark = pytest.mark.run
ROOT = Path(__file__).parents[2]

EQUAL_AFTER_RESUME = ("response_tokens", "response_offsets", "prompt_tokens", "reward", "advantage", "logprobs_old")


def read(run_dir: Path, step: int, name: str) -> np.ndarray:
    with h5py.File(step_path(run_dir, step)) as file:
        return np.asarray(file[name][...])


def sequences(run_dir: Path, step: int, name: str) -> list[np.ndarray]:
    """Values per sample, of a field whose samples differ in length."""
    offsets = read(run_dir, step, "prompt_offsets" if name == "prompt_tokens" else "response_offsets")
    return np.split(read(run_dir, step, name), offsets[1:-1])


def distance_from(model_dir: Path, run_dir: Path, step: int) -> float:
    """Mean distance of the engine's log-probs of a step's tokens from those of a model as transformers computes it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    names = ("prompt_tokens", "response_tokens", "logprobs_engine")
    gaps = []
    for prompt, response, logprobs in zip(*(sequences(run_dir, step, name) for name in names), strict=True):
        tokens = torch.from_numpy(np.concatenate([prompt, response])).long()
        with torch.no_grad():
            logits = model(tokens[None]).logits[0, len(prompt) - 1 : -1].float()
        own = logits.log_softmax(-1).gather(1, tokens[len(prompt) :, None])[:, 0].numpy()
        gaps.append(np.abs(own - logprobs))
    return float(np.concatenate(gaps).mean())


def test_every_step_is_recorded_with_the_version_that_it_sampled_with(straight: Path) -> None:
    assert sorted(losses(straight)) == [0, 1, 2, 3]
    versions = {step: set(read(straight, step, "weight_version")) for step in range(4)}
    assert versions == {step: {f"step{step}".encode()} for step in range(4)}
    with h5py.File(step_path(straight, 3)) as file:
        assert file.attrs["dtype"] == "float32"  # what was used, not the run file's "auto"


def test_the_first_three_steps_cover_the_rows_and_the_fourth_begins_anew(straight: Path) -> None:
    """Each step answers its four rows four times, and no two steps share a batch."""
    batches = []
    for step in range(4):
        rows = read(straight, step, "row").reshape(4, 4)
        assert (rows == rows[:, :1]).all(), "the samples of a group answer one prompt"
        assert read(straight, step, "group").reshape(4, 4)[:, 0].tolist() == [0, 1, 2, 3]
        assert len(set(rows[:, 0])) == 4
        batches.append(frozenset(rows[:, 0].tolist()))
    assert frozenset.union(*batches[:3]) == set(range(12))
    assert len(set(batches)) == 4


def test_no_two_samples_are_sampled_alike(straight: Path) -> None:
    """From random weights eight tokens come twice only under one seed."""
    for step in range(4):
        responses = [tuple(tokens) for tokens in sequences(straight, step, "response_tokens") if len(tokens) == 8]
        assert len(set(responses)) == len(responses) > 8


def test_rewards_and_advantages_are_those_of_the_responses(straight: Path) -> None:
    for step in range(4):
        texts = [text.decode().replace("␀", "\0") for text in read(straight, step, "response_text")]  # as HDF5 has it
        rewards = read(straight, step, "reward")
        np.testing.assert_allclose(rewards, [(sum(map(ord, text)) % 101) / 100 for text in texts])
        groups = rewards.reshape(4, 4)
        wanted = (groups - groups.mean(1, keepdims=True)) / groups.std(1, ddof=1, keepdims=True)
        np.testing.assert_allclose(read(straight, step, "advantage").reshape(4, 4), wanted, rtol=1e-4)


def test_the_first_step_samples_from_the_model_that_was_given_and_each_update_leads_away(straight: Path) -> None:
    """By transformers' own log-probs of the same tokens, under the weights from before the run."""
    gaps = [distance_from(straight.parent / "model", straight, step) for step in range(4)]
    assert gaps[0] < 1e-5
    assert all(later > earlier + 1e-3 for earlier, later in pairwise(gaps)), gaps


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
        "attempts/1/provenance.json",
        "attempts/1/user_code/reward.py",
        "attempts/latest",
        "hf/config.json",
        "hf_steps/step_000002/tokenizer.json",
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
        *("perf/tokens_per_gpu_per_sec", "perf/host_memory_gib_max", "train/tokens_seen"),
        *("perf/save_time", "perf/write_time"),
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


def test_every_checkpoint_that_is_kept_becomes_a_model_and_the_last_one_the_final_model(
    straight: Path, tmp_path: Path
) -> None:
    """The files, byte for byte; the model after two steps was written by the trainer while the run went on."""
    written = [straight / "hf_steps" / "step_000002" / "model.safetensors"]
    for step in (3, 4):
        done = ebbtide("export", str(straight), str(tmp_path / str(step)), "--step", str(step), "--verify")
        assert done.returncode == 0, done.stderr
        written.append(tmp_path / str(step) / "model.safetensors")
    assert len({path.read_bytes() for path in written}) == 3
    final = {path.name: path.read_bytes() for path in (straight / "hf").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "4").iterdir()} == final


def test_inspect_shows_samples(straight: Path) -> None:
    shown = ebbtide("inspect", str(straight), "--step", "2", "--best", "1")
    assert shown.returncode == 0, shown.stderr
    assert "reward" in shown.stdout
    assert "advantage" in shown.stdout


def test_killed_and_stopped_and_resumed_equals_uninterrupted_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    """Also with an optimiser state that streams, beside one that stays."""
    run_dir = tmp_path / "out"
    streams = {"optimizer_state": "streamed"}
    run_file = write_run(tmp_path, rollout={"num_rollout": 3}, train=streams)  # one step less than it will be
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    manifest = run_dir / "checkpoints" / "step_000002" / "manifest.json"
    assert wait_until(lambda: manifest.exists() or command.poll() is not None, 300)
    assert command.poll() is None, (tmp_path / "log").read_text()
    family = descendants([command.pid])
    for process in family:
        process.kill()
    command.wait(30)
    assert wait_until(lambda: not survivors(family), 30)
    before = times_entered(run_dir, "score step=2")  # the run went on while its checkpoint was written
    reward = (tmp_path / "reward.py").read_text()
    slow = reward.replace("    return", "    time.sleep(0.5)\n    return")  # the stop comes before the step's end
    (tmp_path / "reward.py").write_text("import time\n" + slow)
    again = start_ebbtide("resume", str(run_dir), "--set", "rollout.num_rollout=4", log=tmp_path / "again")
    wait_for_phase(run_dir, "score step=2", again, after=before)
    stopped = ebbtide("stop", str(run_dir))
    assert stopped.returncode == 0, stopped.stderr
    assert "attempt 2: interrupted; saved, all 3 steps that are complete" in stopped.stdout
    assert again.wait(60) == 130
    (tmp_path / "reward.py").write_text(reward)
    done = ebbtide("resume", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["step"] for event in events(run_dir, "begin")] == [0, 2, 3]
    assert losses(run_dir) == losses(straight)
    for step in range(4):
        for name in EQUAL_AFTER_RESUME:
            np.testing.assert_array_equal(read(run_dir, step, name), read(straight, step, name), f"{step} {name}")


def test_a_finished_run_resumed_ends_at_once(straight: Path) -> None:
    done = ebbtide("resume", str(straight))
    assert done.returncode == 0
    assert "complete" in done.stdout
    assert not (straight / "attempts" / "2").exists()
