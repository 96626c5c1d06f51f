"""Which parameters are gathered in one collective. That what comes of it is right: test_huggingface.py, on ranks."""

from __future__ import annotations

from core.megatron.state.gather import _runs
from core.megatron.state.names import Entry

BF16 = 2


def entry(name: str, rows: int, stage: int = 0, *, fixed: bool = False) -> Entry:
    return Entry(stage, name, (f"hf.{name}",), "replicated", ((rows, 4),), fixed=fixed)


def names(entries: list[Entry], max_bytes: int) -> list[list[str]]:
    return [[one.local for one in run] for run in _runs(entries, BF16, max_bytes)]


def test_small_ones_that_follow_each_other_are_gathered_together_up_to_the_bound() -> None:
    small = [entry(name, 10) for name in "abcde"]  # 80 bytes each
    assert names(small, 240) == [["a", "b", "c"], ["d", "e"]]
    assert names(small, 239) == [["a", "b"], ["c", "d"], ["e"]]


def test_one_that_is_larger_than_the_bound_comes_alone() -> None:
    assert names([entry("a", 1), entry("large", 1000), entry("b", 1)], 100) == [["a"], ["large"], ["b"]]
    assert names([entry("a", 1), entry("b", 1)], 1) == [["a"], ["b"]]  # save_hf: one at a time


def test_stages_and_what_is_not_trained_are_kept_apart() -> None:
    mixed = [entry("a", 1), entry("b", 1, stage=1), entry("c", 1, stage=1), entry("bias", 1, stage=1, fixed=True)]
    assert names(mixed, 10**6) == [["a"], ["b", "c"], ["bias"]]


def test_nothing_to_gather() -> None:
    assert names([], 100) == []
