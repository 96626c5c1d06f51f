"""What counts as the last number."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.reward import RewardInput
from core.reward.last_number import last_number, score_last_number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7", "7"),
        ("3 + 4 = 7.", "7"),
        ("first 3, then 4", "4"),
        ("it costs $1,234.50 today", "1234.50"),
        ("1,234,567", "1234567"),
        ("3,4", "4"),
        ("12,3456", "3456"),
        ("-7", "-7"),
        ("= -7", "-7"),
        ("(-7)", "-7"),
        ("\u22127", "-7"),
        ("+7", "7"),
        ("10-3", "3"),
        ("x-3", "3"),
        ("(2)-3", "3"),
        ("10 - 3", "3"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("0.50", "0.5"),
        ("1e3", "1000"),
        ("2.5E-2", "0.025"),
        ("3 eggs", "3"),
        ("1/2", "2"),
        ("007", "7"),
        ("**7**", "7"),
        ("\\boxed{42}", "42"),
        ("1\n2\n", "2"),
    ],
)
def test_last_number(text: str, wanted: str) -> None:
    assert last_number(text) == Decimal(wanted)


@pytest.mark.parametrize("text", ["", "none", "...", "-"])
def test_no_number(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("response", "label", "wanted"),
    [("so 7.0", "7", 1.0), ("so 7", 7, 1.0), ("8", "7", 0.0), ("", "7", 0.0), ("72", "so it is\n#### 72", 1.0)],
    ids=["as values", "number label", "wrong", "empty", "GSM8K label"],
)
def test_score(response: str, label: object, wanted: float) -> None:
    assert score_last_number(RewardInput("", response, label)) == wanted


def test_label_without_a_number_fails() -> None:
    with pytest.raises(ValueError, match="label 'seven' holds no number"):
        score_last_number(RewardInput("", "7", "seven"))
