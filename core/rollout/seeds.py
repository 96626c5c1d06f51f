"""Seeds that depend on what is sampled and on nothing else, so that a repeated step repeats its samples."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, stream: str, step: int, group: int, index: int) -> int:
    """Seed of one sample: the same in every attempt, on every engine, in any order of work.

    Args:
        run_seed: the run file's rollout.seed.
        stream: "train", or the name of an evaluation set.
    Returns:
        an integer in [0, 2**31): what all engines accept.
    """
    return _number(f"{run_seed}/{stream}/{step}/{group}/{index}")


def train_seed(run_seed: int, step: int, group: int, index: int) -> int:
    """Seed of one training sample: what the engine is asked with, and what the trajectory store says of the sample."""
    return sample_seed(run_seed, "train", step, group, index)


def turn_seed(seed: int, turn: int) -> int:
    """Seed of a sample's turn: the sample's own for the first, so that one turn is what the built-in makes."""
    return seed if turn == 0 else _number(f"{seed}/turn/{turn}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") & 0x7FFFFFFF
