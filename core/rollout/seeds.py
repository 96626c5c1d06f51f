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
    text = f"{run_seed}/{stream}/{step}/{group}/{index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") & 0x7FFFFFFF


def train_seed(run_seed: int, step: int, group: int, index: int) -> int:
    """Seed of one training sample: what the engine is asked with, and what the trajectory store says of the sample."""
    return sample_seed(run_seed, "train", step, group, index)
