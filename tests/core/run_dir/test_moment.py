"""Where a run is: phase and step, in words, in fields, and in the one text of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest

from core.run_dir.moment import Moment, moment_from_json, moment_of


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"phase": "rollout", "step": 3}, Moment("rollout", 3)),
        ({"phase": "after rollout", "step": 0}, Moment("after rollout", 0)),
        ({"phase": "start", "step": None}, Moment()),
        ({"phase": "rollout step=3"}, Moment("rollout", 3)),
        ({"phase": "after update step=12"}, Moment("after update", 12)),
        ({"phase": "start"}, Moment()),
    ],
    ids=["two fields", "between phases", "start", "one text", "one text between phases", "start as one text"],
)
def test_read(fields: dict[str, Any], wanted: Moment) -> None:
    assert moment_of(fields) == wanted
    assert moment_of(wanted.fields()) == wanted
    assert moment_from_json(wanted.to_json()) == wanted


def test_nothing_was_written_yet() -> None:
    assert moment_from_json(None) == Moment("start", None)


def test_words() -> None:
    assert str(Moment("rollout", 0)) == "rollout of step 0"
    assert str(Moment()) == "start"
