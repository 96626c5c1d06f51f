"""Writes train.jsonl and eval.jsonl of the examples whose questions come from reasoning_gym, unchanged.

python examples/make_rows.py [DIRECTORY]

eval.jsonl is the task as it comes: the first 200 rows of one seed, repetitions included. train.jsonl holds distinct
questions of another seed that are not among them, at most `most_of_a_kind` of each kind.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reasoning_gym

TRAIN_SEED, EVAL_SEED = 1, 1_000_000  # row i of seed s is row i - 1 of seed s + 1: far apart
NUM_EVAL = 200
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A dataset of reasoning_gym and its settings; `kind`: which of its metadata a row keeps, under which key."""

    dataset: str
    num_drawn: int
    settings: dict[str, Any] = field(default_factory=dict)
    kind: dict[str, str] = field(default_factory=dict)
    most_of_a_kind: int = 1200


TASKS = {
    "chain_sum": Task(  # there are only 200 questions with two terms of one digit
        "chain_sum",
        num_drawn=4000,
        settings={"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
        kind={"terms": "num_terms", "digits": "num_digits"},
        most_of_a_kind=800,
    ),
    "family": Task("family_relationships", num_drawn=1200),
}


def rows(task: Task, seed: int, size: int) -> Iterator[Row]:
    """`size` rows of the task, in its own order."""
    for entry in reasoning_gym.create_dataset(task.dataset, **task.settings, seed=seed, size=size):
        kind = {key: entry["metadata"][name] for key, name in task.kind.items()}
        yield {"question": entry["question"], "answer": entry["answer"], **kind}


def train_rows(task: Task, held_out: set[str]) -> Iterator[Row]:
    """Distinct questions that are not held out."""
    seen, of_kind = set(held_out), Counter[tuple[Any, ...]]()
    for row in rows(task, TRAIN_SEED, task.num_drawn):
        kind = tuple(row[key] for key in task.kind)
        if row["question"] not in seen and of_kind[kind] < task.most_of_a_kind:
            seen.add(row["question"])
            of_kind[kind] += 1
            yield row


def write(task: Task, folder: Path) -> None:
    """Write both files; no question is in both."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = list(rows(task, EVAL_SEED, NUM_EVAL))
    train = list(train_rows(task, {row["question"] for row in held_out}))
    for name, some in (("train.jsonl", train), ("eval.jsonl", held_out)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for name, task in TASKS.items():
        write(task, directory / name)


if __name__ == "__main__":
    main()
