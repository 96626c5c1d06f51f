from __future__ import annotations

from common.waiting import wait_until


def test_it_ends_when_the_condition_holds() -> None:
    answers = iter([False, False, True, False])
    assert wait_until(lambda: next(answers), deadline_s=60, poll_s=0)
    assert next(answers) is False


def test_it_asks_at_least_once_and_ends_at_the_deadline() -> None:
    assert wait_until(lambda: True, deadline_s=0)
    asked: list[int] = []
    assert not wait_until(lambda: bool(asked.append(1)), deadline_s=0.01, poll_s=0.001)
    assert asked
