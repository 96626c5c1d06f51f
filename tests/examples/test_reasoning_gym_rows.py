"""The rows that come from reasoning_gym: what the script writes, held out from training, answers right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import COMMAND_S

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = ("chain_sum", "family")


def read(task: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / task / name).read_text().splitlines()]


def test_files_equal_the_scripts_output(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "make_rows.py"), str(tmp_path)], check=True, timeout=COMMAND_S)
    assert {path.name for path in tmp_path.iterdir()} == set(TASKS)
    for task in TASKS:
        for name in ("train.jsonl", "eval.jsonl"):
            written, kept = tmp_path / task / name, EXAMPLES / task / name
            assert written.read_bytes() == kept.read_bytes(), f"run make_rows.py: {kept} is out of date"


@pytest.mark.parametrize("task", TASKS)
def test_held_out_questions_are_neither_trained_on_nor_shown_as_examples(task: str) -> None:
    train, held_out = read(task, "train.jsonl"), read(task, "eval.jsonl")
    assert len(held_out) == 200
    asked = {row["question"] for row in held_out}
    assert asked.isdisjoint(row["question"] for row in train)
    assert len({row["question"] for row in train}) == len(train)
    for template in (EXAMPLES / task).glob("*.jinja"):
        shown = re.findall(r"\('([^']+)', '", template.read_text())
        assert len(shown) >= 2
        plain = {question.rpartition(": ")[2].removesuffix(" =") for question in asked}
        assert plain.isdisjoint(example.replace(r"\n", "\n") for example in shown)


def test_every_label_is_the_sum() -> None:
    for row in read("chain_sum", "train.jsonl") + read("chain_sum", "eval.jsonl"):
        expression = row["question"].partition(": ")[2].removesuffix(" =")
        numbers = [int(term) for term in expression.replace("- ", "-").replace("+ ", "").split()]
        assert (sum(numbers), len(numbers)) == (int(row["answer"]), row["terms"])
