"""Rows: products of numbers with two digits, which a small model cannot work out by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator


def rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """The first `count` of all products in an order by `seed`; those of another seed may be among them."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(seed).shuffle(pairs)
    for a, b in pairs[:count]:
        yield {"question": f"What is {a} * {b}?", "answer": str(a * b)}
