"""What the terminal says of a run that learns nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from launchers.show.display import Display


def said(ratios: list[float]) -> list[str]:
    text = io.StringIO()
    display = Display(Console(file=text, width=80))
    display.show({"event": "step", "step": i, "metrics": {"rollout/zero_std/ratio": x}} for i, x in enumerate(ratios))
    return [line for line in text.getvalue().splitlines() if "no group had a spread" in line]


@pytest.mark.parametrize(
    ("ratios", "times"),
    [([1.0] * 2, 0), ([1.0] * 9, 1), ([1.0, 1.0, 0.5] * 3, 0), ([1.0] * 3 + [0.9] + [1.0] * 3, 2)],
    ids=["two steps", "once", "never three in a row", "again"],
)
def test_steps_in_which_all_rewards_are_equal_are_told_once(ratios: list[float], times: int) -> None:
    assert len(said(ratios)) == times
