"""Training rows in the order of a curriculum: easy sums first, then more and more of the hard ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

from ebbtide import load_function

ROWS = Path(__file__).parent / "train.jsonl"
beginnings = load_function(f"{Path(__file__).parent / 'reward.py'}:beginnings", "chain_sum")
Mix = Mapping[str, float]  # kind (terms x digits, "3x1") to weight


def rows(
    num_steps: int, prompts_per_step: int, mixes: Sequence[Mix], begun: float = 0.0, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """`num_steps` x `prompts_per_step` rows of train.jsonl, with `worked`: the reward is for the steps, too.

    Args:
        mixes: how much of each kind from which step on, by rising `step`: [{"step": 0, "2x1": 0.6, "3x1": 0.4}, ...];
            between two of them the weights change evenly, after the last one no more.
        begun: share of the rows whose answer has a right beginning already, cut after any of its numbers, so that
            every step of it is met by itself (a reverse curriculum, arXiv:2402.05808).
        seed: of the order and the draws.
    Raises:
        ValueError: a kind that train.jsonl has not, or no mix for step 0.
    """
    rng = random.Random(seed)
    pools = _pools(rng)
    kinds = {kind for mix in mixes for kind in mix} - {"step"}
    if unknown := sorted(kinds - pools.keys()):
        raise ValueError(f"curriculum kinds {unknown}; wanted some of {sorted(pools)}")
    for step in range(num_steps):
        weights = weights_at(step, mixes, sorted(kinds))
        for kind in rng.choices(sorted(kinds), weights=weights, k=prompts_per_step):
            row = {**next(pools[kind]), "worked": True}
            yield begin(row, rng) if rng.random() < begun else row


def begin(row: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """The row with a beginning of its answer as the assistant's, to be gone on with; as it is, if there is none."""
    if not (possible := beginnings(row["question"])):
        return dict(row)
    written = rng.choice(possible)
    messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": written}]
    return {**row, "question": messages, "begun": written}


def weights_at(step: int, mixes: Sequence[Mix], kinds: Sequence[str]) -> list[float]:
    """The weight of each kind at a step.

    Raises:
        ValueError: the first mix is not for step 0.
    """
    if not mixes or mixes[0]["step"] != 0:
        raise ValueError(f"curriculum mixes {list(mixes)}; wanted the first one for step 0")
    for before, after in pairwise(mixes):
        if step < after["step"]:
            done = (step - before["step"]) / (after["step"] - before["step"])
            return [(1 - done) * before.get(kind, 0.0) + done * after.get(kind, 0.0) for kind in kinds]
    return [mixes[-1].get(kind, 0.0) for kind in kinds]


def _pools(rng: random.Random) -> dict[str, Iterator[dict[str, Any]]]:
    """Endless rows of each kind: all of them in one random order, again and again."""
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        of_kind.setdefault(f"{row['terms']}x{row['digits']}", []).append(row)
    for pool in of_kind.values():
        rng.shuffle(pool)
    return {kind: cycle(pool) for kind, pool in of_kind.items()}
