"""Rows: expressions with large numbers, which no model works out reliably in its head, and a line of Python does."""

from __future__ import annotations

import random
from collections.abc import Iterator


def rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """`count` expressions by `seed`, such as (48213 * 977 - 120044) * 31, each with its value."""
    chance = random.Random(seed)
    for _ in range(count):
        first, second, third = (chance.randint(10**4, 10**5 - 1) for _ in range(3))
        text = f"({first} * {chance.randint(100, 999)} {chance.choice('+-')} {second}) {chance.choice('+-*')} {third}"
        yield {"question": f"What is {text}?", "answer": str(eval(text))}
