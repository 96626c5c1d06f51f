"""Which samples of a step are shown."""

from __future__ import annotations

import pytest

from core.samples import Prompt, Sample, Status
from core.sinks.shown import LONGEST, markdown_table, to_show


def sample(index: int, reward: float | None) -> Sample:
    status = Status.FAILED if reward is None else Status.COMPLETED
    prompt = Prompt(row=0, text="p", tokens=(1,), label="x")
    return Sample(0, index, prompt, [1], [-1.0], status, "step0", reward=reward, response_text=f"r{index}")


@pytest.mark.parametrize(
    ("count", "indices"),
    [(1, [2, 3]), (2, [2, 0, 1, 3]), (3, [2, 0, 4, 1, 3]), (9, [2, 0, 4, 1, 3])],
    ids=["one each", "two each", "more than there are", "all"],
)
def test_the_best_come_first_and_the_worst_last(count: int, indices: list[int]) -> None:
    samples = [sample(index, reward) for index, reward in enumerate([0.5, -1.0, 2.0, None, 0.0])]
    assert [one.index for one in to_show(samples, count)] == indices


def test_long_texts_are_cut_in_the_table() -> None:
    [one] = to_show([sample(0, 1.0)], 1)
    text = markdown_table([one.__class__(**{**vars(one), "response": "a" * 3 * LONGEST})])
    assert text.count("a") == LONGEST + 1  # "a" of the rest
