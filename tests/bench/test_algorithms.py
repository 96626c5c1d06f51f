"""The toy task: its run files, and that the page and the result say the same."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from bench.algorithm_page import critic, page, read
from bench.algorithms import PAGE, RUNS, SETTINGS, changes, merged, teachers_first
from bench.digit_task import run_file, write_task
from bench.record import RESULTS
from core.checks import check_run_file
from core.doors import ADVANTAGE, LOSS
from core.pretrained.tokenizer import load_tokenizer

ALGORITHMS = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["algorithms"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), seed=0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_is_a_run_file_without_mistakes(name: str, task: Path) -> None:
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    (task / RUNS / "grpo").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (task / RUNS / "grpo" / "hf").symlink_to(task / "model")
    written = merged(run_file(task), settings["run"], changes(settings["algorithms"][name], task))
    (task / f"{name}.yaml").write_text(yaml.safe_dump(written))
    assert check_run_file(task / f"{name}.yaml").rollout.num_rollout == settings["run"]["rollout"]["num_rollout"]


def test_a_teacher_runs_before_those_that_learn_from_it() -> None:
    assert teachers_first(["ppo", "distillation", "grpo"], ALGORITHMS) == ["ppo", "grpo", "distillation"]


def test_every_advantage_and_loss_that_engines_make_samples_for_is_among_them() -> None:
    chosen = [one.get("algorithm", {}) for one in ALGORITHMS.values()]
    assert {one.get("advantage_estimator", "grpo") for one in chosen} == set(ADVANTAGE.builtins) - {"none"}
    assert {one.get("loss", "clipped") for one in chosen} == set(LOSS.builtins) - {"sft"}


def test_a_digit_is_a_token(task: Path) -> None:
    tokenizer = load_tokenizer(task / "model")
    assert [tokenizer.decode(tokenizer.encode(str(digit))) for digit in range(10)] == list(map(str, range(10)))
    assert tokenizer.decode([2, 5]) == "2"


def test_settings_are_laid_over_each_other_key_by_key() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3}}, {"d": {"e": 4}}) == {
        "a": {"b": 3, "c": 2},
        "d": {"e": 4},
    }


def test_rewards_and_accuracies_are_read_in_order(tmp_path: Path) -> None:
    events = [{"event": "eval", "step": 0, "results": {"digits": {"accuracy": 0.1}}}]
    events += [{"event": "step", "step": step, "metrics": {"rollout/raw_reward": step / 4}} for step in range(3)]
    events += [{"event": "eval", "step": 3, "results": {"digits": {"accuracy": 0.9}}}]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert read(tmp_path) == {"rewards": [0.0, 0.25, 0.5], "accuracy": [0.1, 0.9]}


def test_what_a_critic_explains_is_told(tmp_path: Path) -> None:
    values = [None, -0.5, 0.25, 0.75]
    metrics = [
        {"rollout/raw_reward": 0.5, **({"train/explained_variance": x} if x is not None else {})} for x in values
    ]
    lines = [json.dumps({"event": "step", "step": step, "metrics": one}) for step, one in enumerate(metrics)]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines))
    found = read(tmp_path)
    assert found["explained_variance"] == values
    told = critic({"name": "ppo", **found})
    assert "`ppo` explains 0.75 of the variance" in told
    assert "0.25 in the\nmedian of all, 0.75 at most; it is above 0 in 2 of 3 steps" in told
    assert critic({"name": "grpo"}) == ""


def test_the_page_is_made_of_the_result() -> None:
    record = json.loads((RESULTS / "algorithms.json").read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(record)
    assert {*(run["name"] for run in record["runs"]), *record["missing"]} == set(ALGORITHMS)
    assert record["runs"]
    assert all(run["accuracy"][-1] > record["target"] > run["accuracy"][0] for run in record["runs"])
    assert (RESULTS / "algorithms.png").read_bytes().startswith(b"\x89PNG")
