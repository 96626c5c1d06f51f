"""The word reversal example: its files and its reward."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.config.schema import RewardConfig
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "word_reversal"
score = build_scorer(RewardConfig(type="python", path=f"{EXAMPLE / 'reward.py'}:score"))


def test_files_equal_the_scripts_output(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "make.py"), str(tmp_path)], check=True, timeout=120)
    for name in ("train.jsonl", "eval.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes(), f"run make.py: {name} is out of date"


def test_rows_are_reversed_and_held_out_rows_are_not_trained_on() -> None:
    train, held_out = (
        {row["question"]: row["answer"] for row in map(json.loads, (EXAMPLE / name).read_text().splitlines())}
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert len(held_out) == 200
    assert held_out.keys().isdisjoint(train)
    for question, answer in {**train, **held_out}.items():
        words = question.rpartition(": ")[2].strip().split(", ")
        assert answer == ", ".join(reversed(words))
        assert 3 <= len(words) <= 6


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        ("of, as, by, the", 1.0),
        (" of, as, by, the\n", 1.0),
        ("of,as,by,the", 0.5),
        ("of, as, the, by", 0.25),
        ("of, as, by", 0.375),
        ("of, as, by, the, the, by, as, of", 0.25),
        ("the, by, as, of", 0.0),
        ("", 0.0),
    ],
)
def test_reward(response: str, wanted: float) -> None:
    assert score(RewardInput("Reverse this list of words: the, by, as, of", response, "of, as, by, the")) == wanted
