"""The comparison with TRL: what it takes over from a run file, what it counts, and the two programs themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import peer_task, peer_trl, stories, trl_venv
from core.checks import check_run_file
from core.config import load_run_file
from core.reward.sample import RewardInput
from tests.support.tiny_runs import ROOT, write_run
from tests.support.waiting import COMMAND_S

TRL_VENV = ROOT / ".cache" / "trl-venv"
ONE_STEP = {"global_batch_size": 16, "num_steps_per_rollout": 1}


def made(name: str, seconds: list[float], tokens: int = 10) -> peer_trl.Run:
    return {"name": name, "startup_s": 1.0, "steps": [{"seconds": s, "tokens": tokens, "reward": 0.5} for s in seconds]}


def test_the_fastest_variant_counts_without_first_steps() -> None:
    runs = [
        made("ebbtide", [9.0, 1.0, 2.0, 3.0]),
        made("trl, a", [1.0, 8.0, 8.0, 8.0]),
        made("trl, b", [50.0, 6.0, 5.0, 7.0], tokens=20),
        {"name": "trl, c", "failed": "RuntimeError: no"},
    ]
    compared = peer_trl.comparison(runs)
    assert compared["compared_with"] == "trl, b"
    assert compared["step_ratio"] == pytest.approx(6.0 / 2.0)
    assert compared["tokens_per_s_ratio"] == pytest.approx((30 / 6.0) / (60 / 18.0))


@pytest.mark.parametrize(
    "runs",
    [[made("ebbtide", [1.0])], [made("ebbtide", [1.0]), {"name": "trl, a", "failed": "no"}]],
    ids=["one", "failed"],
)
def test_nothing_is_compared_with_nothing(runs: list[peer_trl.Run]) -> None:
    assert peer_trl.comparison(runs) == {}


def test_results_of_several_calls_are_one_comparison(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps({"runs": [made("trl, a", [2.0])], "versions": {"trl": "1"}}))
    files[1].write_text(json.dumps({"runs": [made("trl, b", [1.0])], "versions": {"trl": "1", "vllm": "2"}}))
    runs, versions = peer_trl._trl_result(*files)
    assert peer_trl.comparison([made("ebbtide", [0.5]), *runs])["compared_with"] == "trl, b"
    assert versions == {"trl": "1", "vllm": "2"}


def test_prompts_are_those_of_the_run_in_its_order(tmp_path: Path) -> None:
    from core.data import build
    from core.pretrained.tokenizer import load_tokenizer

    config = peer_task.measured(load_run_file(write_run(tmp_path, train=ONE_STEP)), 5, "cpu")
    peer_task.check(config)
    task = peer_task.task(config, tmp_path / "model")
    source = build(config.data, load_tokenizer(tmp_path / "model"))
    assert len(source) < 5 * 4  # a second epoch, in another order, is among them
    wanted = [source.prompt(position) for position in range(5 * 4)]
    assert [(p["label"], p["metadata"]) for p in task["prompts"]] == [(p.label, dict(p.metadata)) for p in wanted]
    assert task["num_steps"] == 5
    assert task["optimiser"]["learning_rate"] == config.train.lr == 1e-3
    assert task["optimiser"]["lr_scheduler_type"] == config.train.lr_schedule
    json.dumps(task)


def test_settings_that_would_not_be_the_same_are_refused(tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path, algorithm={"kl_loss_coef": 0.1}))
    with pytest.raises(ValueError, match=r"kl_loss_coef is 0.1, wanted 0; .*num_steps_per_rollout is 2, wanted 1"):
        peer_task.check(config)


def test_the_long_task_is_a_valid_run_and_tells_answers_apart() -> None:
    config = check_run_file(ROOT / "bench" / "stories.yaml")
    peer_task.check(config)
    assert len(stories.rows()) >= config.rollout.num_rollout * config.rollout.rollout_batch_size
    few, many = (stories.variety(RewardInput("", text)) for text in ("a dog a dog", "a dog ran far"))
    assert few < many


@pytest.mark.run
@pytest.mark.skipif(not (TRL_VENV / f".{trl_venv.TRL}").exists(), reason="bench/peer_trl.py has not installed TRL yet")
def test_both_programs_do_the_same_amount_of_work(tmp_path: Path) -> None:
    """TRL and ours, on a tiny model: three steps of 16 samples each, none longer than the run file allows."""
    run_file = write_run(tmp_path, train=ONE_STEP)
    common = [sys.executable, str(ROOT / "bench" / "peer_trl.py"), str(run_file), "--device", "cpu", "--steps", "3"]
    for only in ("trl", "ebbtide"):
        subprocess.run(
            [*common, "--only", only, "--keep", str(tmp_path / only)], check=True, cwd=ROOT, timeout=COMMAND_S
        )
    [theirs], versions = peer_trl._trl_result(tmp_path / "trl" / "trl.json")
    assert versions["trl"] == trl_venv.TRL.removeprefix("trl==")
    lines = (tmp_path / "ebbtide" / "run" / "progress.jsonl").read_text().splitlines()
    ours = peer_trl.steps_of([json.loads(line) for line in lines], began=0.0)
    for run in (theirs, ours):
        assert len(run["steps"]) == 3
        for step in run["steps"]:
            assert 16 <= step["tokens"] <= 16 * 8
            assert 0 < step["rollout"] + step["update"] <= step["seconds"] + 1e-3
            assert 0 <= step["reward"] <= 1
