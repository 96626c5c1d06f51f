"""Seeds of samples: distinct, in range, and the same for ever."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest

from core.rollout.seeds import sample_seed, train_seed, turn_seed

Which = tuple[int, str, int, int, int]  # run, stream, step, group, index


def test_every_sample_of_a_run_has_a_seed_of_its_own_in_range() -> None:
    seeds = [sample_seed(1, *which) for which in product(["train", "eval/a"], range(4), range(24), range(24))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 0.99 * 2**31, "the whole range is used"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "train", 2, 3, 4), (2, "train", 2, 3, 4)),
        ((1, "train", 2, 3, 4), (1, "eval/a", 2, 3, 4)),
        ((1, "train", 2, 3, 14), (1, "train", 2, 31, 4)),
        ((1, "train", 2, 13, 4), (1, "train", 21, 3, 4)),
        ((1, "train", 2, 3, 4), (1, "train", 2, 4, 3)),
    ],
    ids=["run", "stream", "group and index", "step and group", "swapped"],
)
def test_what_tells_two_samples_apart(one: Which, other: Which) -> None:
    assert sample_seed(*one) != sample_seed(*other)


def test_a_run_that_is_resumed_by_a_later_version_goes_on_with_its_seeds() -> None:
    text = b"1234/train/7/3/2"
    wanted = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") % 2**31
    assert sample_seed(1234, "train", 7, 3, 2) == wanted == 1418126090


def test_a_training_sample_has_the_seed_of_its_stream() -> None:
    assert train_seed(1234, 7, 3, 2) == sample_seed(1234, "train", 7, 3, 2)


def test_turns_of_a_sample_have_seeds_of_their_own_and_the_first_that_of_the_sample() -> None:
    assert turn_seed(77, 0) == 77
    wanted = int.from_bytes(hashlib.blake2b(b"77/turn/1", digest_size=4).digest(), "big") % 2**31
    assert turn_seed(77, 1) == wanted
    assert len({turn_seed(seed, turn) for seed in (77, 78) for turn in range(50)}) == 100
