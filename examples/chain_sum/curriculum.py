"""Training rows in the order of a curriculum: easy sums first, then more and more of the hard ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

ROWS = Path(__file__).parent / "train.jsonl"


def rows(
    num_steps: int,
    prompts_per_step: int,
    start: Mapping[str, float],
    end: Mapping[str, float],
    ramp_steps: int,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """`num_steps` x `prompts_per_step` rows of train.jsonl.

    Args:
        start: share of each kind in the first step; kinds are named terms x digits: {"2x1": 0.6, "3x1": 0.4}.
        end: the same from step `ramp_steps` on; in between the shares change evenly.
        seed: of the order and the draws.
    Raises:
        ValueError: a kind that train.jsonl has not.
    """
    rng = random.Random(seed)
    pools = _pools(rng)
    if unknown := sorted({*start, *end} - pools.keys()):
        raise ValueError(f"curriculum kinds {unknown}; wanted some of {sorted(pools)}")
    for step in range(num_steps):
        mix = shares(start, end, min(1.0, step / ramp_steps))
        for kind in rng.choices(list(mix), weights=list(mix.values()), k=prompts_per_step):
            yield next(pools[kind])


def shares(start: Mapping[str, float], end: Mapping[str, float], progress: float) -> dict[str, float]:
    """Share of each kind at `progress` (0: start, 1: end)."""
    kinds = sorted({*start, *end})
    return {kind: (1 - progress) * start.get(kind, 0.0) + progress * end.get(kind, 0.0) for kind in kinds}


def _pools(rng: random.Random) -> dict[str, Iterator[dict[str, Any]]]:
    """Endless rows of each kind: all of them in one random order, again and again."""
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        of_kind.setdefault(f"{row['terms']}x{row['digits']}", []).append(row)
    for pool in of_kind.values():
        rng.shuffle(pool)
    return {kind: cycle(pool) for kind, pool in of_kind.items()}
