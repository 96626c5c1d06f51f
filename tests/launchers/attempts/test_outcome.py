from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from launchers.attempts.outcome import How, Outcome, read_outcome, write_outcome

CODES: dict[How, int] = {
    "complete": 0,
    "timeout": 0,
    "preempted": 0,
    "interrupted": 143,
    "failed": 1,
    "node_failure": 1,
    "lost": 1,
}


@pytest.mark.parametrize(("how", "code"), CODES.items())
def test_the_exit_code_of_each_end(how: How, code: int) -> None:
    assert Outcome(how).exit_code == code


def test_every_end_has_an_exit_code_here() -> None:
    assert set(CODES) == set(get_args(How))


def test_an_outcome_is_read_as_written(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) is None
    outcome = Outcome("node_failure", ("n2", "n3"), "not heard of")
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path) == outcome
