from __future__ import annotations

import pytest

from common.duration import seconds_of


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("1.5 h", 5400.0)])
def test_what_is_meant(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30 min", "-3m", "0m", "1e3s", "nan s"])
def test_what_is_none(text: str) -> None:
    assert seconds_of(text) is None
