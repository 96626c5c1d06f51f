"""Writes train.jsonl and eval.jsonl: reasoning_gym's chain_sum with 2 to 3 terms of 1 to 2 digits, questions unchanged.

python examples/chain_sum/make.py [DIRECTORY]

eval.jsonl is the task as it comes: the first 200 rows of one seed, repetitions included. train.jsonl holds the distinct
questions of another seed that are not among them, at most `MOST_OF_A_KIND` of each number of terms and digits (there
are only 200 questions with two terms of one digit).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reasoning_gym

TASK = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
TRAIN_SEED, EVAL_SEED = 1, 1_000_000  # row i of seed s is row i - 1 of seed s + 1
NUM_EVAL, NUM_DRAWN, MOST_OF_A_KIND = 200, 4000, 800


def task_rows(seed: int, size: int) -> Iterator[dict[str, Any]]:
    """`size` rows of the task, in its own order."""
    for entry in reasoning_gym.create_dataset("chain_sum", **TASK, seed=seed, size=size):
        kind = entry["metadata"]
        yield {
            "question": entry["question"],
            "answer": entry["answer"],
            "terms": kind["num_terms"],
            "digits": kind["num_digits"],
        }


def train_rows(held_out: set[str]) -> Iterator[dict[str, Any]]:
    """Distinct questions that are not held out."""
    seen, of_kind = set(held_out), Counter[tuple[int, int]]()
    for row in task_rows(TRAIN_SEED, NUM_DRAWN):
        kind = (row["terms"], row["digits"])
        if row["question"] not in seen and of_kind[kind] < MOST_OF_A_KIND:
            seen.add(row["question"])
            of_kind[kind] += 1
            yield row


def files() -> dict[str, str]:
    """File name to content; no question is in both files."""
    held_out = list(task_rows(EVAL_SEED, NUM_EVAL))
    train = train_rows({row["question"] for row in held_out})
    return {name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in _named(train, held_out)}


def _named(train: Iterator[dict[str, Any]], held_out: list[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    yield "train.jsonl", list(train)
    yield "eval.jsonl", held_out


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for name, content in files().items():
        (directory / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
