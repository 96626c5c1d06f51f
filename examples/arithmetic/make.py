"""Writes train.jsonl (80 rows) and eval.jsonl (20 rows): the sums of all 100 ordered pairs of digits.

python examples/arithmetic/make.py [DIRECTORY]
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SEED = 7
NUM_EVAL = 20


def files() -> dict[str, str]:
    """File name to content; no pair is in both files."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    random.Random(SEED).shuffle(pairs)
    lines = [json.dumps({"question": f"What is {a} + {b}?", "answer": str(a + b)}) + "\n" for a, b in pairs]
    return {"train.jsonl": "".join(lines[NUM_EVAL:]), "eval.jsonl": "".join(lines[:NUM_EVAL])}


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for name, content in files().items():
        (directory / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
