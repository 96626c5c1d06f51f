"""A run that trains adapters, from the run file to what PEFT reads: real trainers, a real engine, a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny_runs import ebbtide, events, losses, write_run

pytestmark = pytest.mark.run
LORA = {"rank": 8, "alpha": 16}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    run_file = write_run(
        folder,
        rollout={"num_rollout": 3},
        algorithm={"kl_loss_coef": 0.01},
        train={"lr": 3e-3, "lora": LORA},
        placement={"check_sync": 1},
        checkpoint={"keep": 3},
    )
    done = ebbtide("run", str(run_file), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_engine_and_trainer_agree_after_each_sync(finished: Path) -> None:
    steps = events(finished, "step")
    assert sorted(losses(finished)) == [0, 1, 2]
    for event in steps:
        assert event["metrics"]["train/train_rollout_logprob_abs_diff"] < 1e-5
        assert event["metrics"]["train/train_rollout_logprob_abs_diff_max"] < 1e-3
    assert 0 < steps[0]["metrics"]["train/kl_loss"] < steps[2]["metrics"]["train/kl_loss"]


def test_the_final_model_is_the_base_and_the_exported_adapters(finished: Path, tmp_path: Path) -> None:
    done = ebbtide("export", str(finished), str(tmp_path / "adapters"), "--adapters", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"written: {tmp_path}/adapters, the adapters after step 3 (float32, 1 file, ")
    settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], len(settings["target_modules"])) == (8, 16.0, 7)
    adapters = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    base = load_file(finished.parent / "model" / "model.safetensors")
    final = load_file(finished / "hf" / "model.safetensors")
    changed = [name for name in final if not torch.equal(final[name], base[name])]
    assert len(changed) == len(adapters) // 2 == 7 * 2
    for name in changed:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        added = 2.0 * (adapters[f"{module}.lora_B.weight"] @ adapters[f"{module}.lora_A.weight"])
        torch.testing.assert_close(final[name], base[name] + added, rtol=0, atol=1e-6)


def test_an_exported_model_is_merged(finished: Path, tmp_path: Path) -> None:
    done = ebbtide("export", str(finished), str(tmp_path / "whole"), "--verify")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert written == (finished / "hf" / "model.safetensors").read_bytes()


def test_a_run_goes_on_with_its_adapters_and_no_others(finished: Path) -> None:
    refused = ebbtide("resume", str(finished), "--set", "train.lora.rank=4")
    assert refused.returncode == 2
    assert "the checkpoint holds these adapters" in refused.stderr
    done = ebbtide("resume", str(finished), "--set", "rollout.num_rollout=4")
    assert done.returncode == 0, done.stdout + done.stderr
    last = [event for event in events(finished, "step") if event["step"] == 3]
    assert last[-1]["metrics"]["train/train_rollout_logprob_abs_diff"] < 1e-5
