"""Rows: products of numbers with two digits, which a small model cannot work out by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator

KEPT_OUT = 10  # one product in ten is for evaluation alone


def rows(count: int, seed: int, kept_out: bool = False) -> Iterator[dict[str, str]]:
    """The first `count` products in an order by `seed`: of those to train on, or of those that are kept out."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if ((a + b) % KEPT_OUT == 0) == kept_out]
    random.Random(seed).shuffle(pairs)
    for a, b in pairs[:count]:
        yield {"question": f"Call multiply for {a} * {b}.", "answer": str(a * b)}
