"""Writes train.jsonl and eval.jsonl: reasoning_gym's word_sequence_reversal of 3 to 6 words, questions unchanged.

python examples/word_reversal/make.py [DIRECTORY]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import reasoning_gym

TASK = {"min_words": 3, "max_words": 6}
TRAIN_SEED, EVAL_SEED = 1, 1_000_000  # row i of seed s is row i - 1 of seed s + 1
NUM_TRAIN, NUM_EVAL = 1200, 200

Rows = dict[str, str]  # question to answer: a question twice is one row


def task_rows(seed: int, size: int) -> Iterator[tuple[str, str]]:
    """Question and answer of `size` rows of the task, in its own order."""
    for entry in reasoning_gym.create_dataset("word_sequence_reversal", **TASK, seed=seed, size=size):
        yield entry["question"], entry["answer"]


def files() -> dict[str, str]:
    """File name to content; no question is in both files."""
    held_out = dict(task_rows(EVAL_SEED, NUM_EVAL))
    train = {question: answer for question, answer in task_rows(TRAIN_SEED, NUM_TRAIN) if question not in held_out}
    return {"train.jsonl": _jsonl(train), "eval.jsonl": _jsonl(held_out)}


def _jsonl(rows: Rows) -> str:
    return "".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows.items())


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for name, content in files().items():
        (directory / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
