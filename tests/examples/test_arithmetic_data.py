"""The arithmetic example's files are what its script makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import COMMAND_S

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "arithmetic"


def test_files_equal_the_scripts_output(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "make.py"), str(tmp_path)], check=True, timeout=COMMAND_S)
    for name in ("train.jsonl", "eval.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes(), f"run make.py: {name} is out of date"


def test_every_pair_of_digits_once() -> None:
    train, held_out = (
        [json.loads(line) for line in (EXAMPLE / name).read_text().splitlines()]
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert (len(train), len(held_out)) == (80, 20)
    answers = {row["question"]: row["answer"] for row in train + held_out}
    assert answers == {f"What is {a} + {b}?": str(a + b) for a in range(10) for b in range(10)}
