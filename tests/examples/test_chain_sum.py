"""The chain_sum example: its files, its reward, its curriculum."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from math import log
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config.schema import RewardConfig
from core.python_path import load_function
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chain_sum"
RUN_FILE = yaml.safe_load((EXAMPLE.parent / "chain-sum.yaml").read_text())
OPTIONS = RUN_FILE["data"]["options"]
score = build_scorer(RewardConfig(type="python", path=f"{EXAMPLE / 'reward.py'}:score"))
curriculum = load_function(f"{EXAMPLE / 'curriculum.py'}:rows", "data.path")


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLE / name).read_text().splitlines()]


def test_files_equal_the_scripts_output(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "make.py"), str(tmp_path)], check=True, timeout=120)
    for name in ("train.jsonl", "eval.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes(), f"run make.py: {name} is out of date"


def test_held_out_rows_are_the_plain_task_and_are_not_trained_on() -> None:
    train, held_out = read("train.jsonl"), read("eval.jsonl")
    assert len(held_out) == 200
    asked = {row["question"] for row in held_out}
    assert asked.isdisjoint(row["question"] for row in train)
    worked = re.findall(r"\('([-+\d ]+)', '", (EXAMPLE / "steps.jinja").read_text())
    assert len(worked) >= 3
    assert all(not question.endswith(f": {example} =") for question in asked for example in worked)


def test_every_label_is_the_sum() -> None:
    for row in read("train.jsonl") + read("eval.jsonl"):
        expression = row["question"].partition(": ")[2].removesuffix(" =")
        numbers = [int(term) for term in expression.replace("- ", "-").replace("+ ", "").split()]
        assert (sum(numbers), len(numbers)) == (int(row["answer"]), row["terms"])


@pytest.mark.parametrize(
    ("asked", "response", "wanted"),
    [
        ("38 + 45 - 17", "38 + 45 = 83, 83 - 17 = 66", 1.0),
        ("38 + 45 - 17", "66", 1.0),
        ("23 - 41", "23 - 41 = -18", 1.0),
        ("23 - 41", "23 - 41 = 18", 0.5 * 0.5 * (1 - log(37) / log(101))),
        ("23 - 41", "23 - 41 = 181", 0.0),
        ("23 - 41", "23 - 41 = -18, -18 + 1 = -17", 0.5),
        ("23 + 41", "23 + 41 = 65", 0.5 * 0.5 * (1 - log(2) / log(101))),
        ("23 + 41", "23 + 41 = 74", 0.5 * (1 - 0.5 * log(11) / log(101))),
        ("38 + 45 - 17", "38 + 45 = 83", 0.5 * 0.5),
        ("38 + 45 - 17", "38 + 45 = 93, 93 - 17 = 76", 0.5 * (2 - 0.5 * log(11) / log(101)) / 2),
        ("38 + 45 - 17", "138 + 45 = 83, 83 - 17 = 60", 0.0),
        ("38 + 45 - 17", "The answer is 65.", 0.0),
        ("38 + 45 - 17", "", 0.0),
    ],
)
def test_reward(asked: str, response: str, wanted: float) -> None:
    prompt = f"... 1 + 2 =\n1 + 2 = 3\nState the final answer to the following arithmetic problem: {asked} =\n"
    label = str(eval(asked))
    assert score(RewardInput(prompt, response, label)) == pytest.approx(wanted)


def test_a_prompt_without_a_sum_is_a_failure() -> None:
    with pytest.raises(ValueError, match="wanted a sum"):
        score(RewardInput("How are you?", "7", "8"))


def test_curriculum_starts_and_ends_with_its_shares() -> None:
    rows = list(curriculum(**{**OPTIONS, "prompts_per_step": 50}))
    assert len(rows) == 50 * OPTIONS["num_steps"]
    for part, wanted in ((rows[: 50 * 4], OPTIONS["start"]), (rows[50 * OPTIONS["ramp_steps"] :], OPTIONS["end"])):
        found = Counter(f"{row['terms']}x{row['digits']}" for row in part)
        for kind in ("2x1", "3x1", "2x2", "3x2"):
            assert found[kind] / len(part) == pytest.approx(wanted.get(kind, 0.0), abs=0.12), kind


def test_curriculum_repeats_itself_and_another_seed_gives_another_order() -> None:
    first, again, other = (list(islice(curriculum(**{**OPTIONS, "seed": seed}), 64)) for seed in (3, 3, 4))
    assert first == again != other


def test_curriculum_refuses_a_kind_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"\['4x1'\]; wanted some of \['2x1'"):
        list(curriculum(**{**OPTIONS, "end": {"4x1": 1.0}}))


def test_the_run_file_asks_for_as_many_rows_as_the_curriculum_gives() -> None:
    rollout = RUN_FILE["rollout"]
    assert OPTIONS["num_steps"] == rollout["num_rollout"]
    assert OPTIONS["prompts_per_step"] == rollout["rollout_batch_size"]
    assert not RUN_FILE["data"]["shuffle"]
