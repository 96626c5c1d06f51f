from __future__ import annotations

from typing import Any

import pytest

from core.loop import pause
from core.loop.pause import Pause
from core.processes import keys
from core.processes.rendezvous import Rendezvous


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank: what it broadcasts is what it gets."""
    monkeypatch.setattr(pause, "broadcast", lambda value: value)


def at_times(
    store: Rendezvous, ends_at: float | None, *times: float, reserve_s: float = 10.0, first_step_s: float = 0.0
) -> list[bool]:
    clock = iter(times)
    asked = Pause(
        store,
        ends_at=ends_at,
        reserve_s=reserve_s,
        decides=True,
        first_step_s=first_step_s,
        clock=lambda: next(clock),
    )
    return [asked.due(step) for step in range(len(times))]


def test_without_an_end_it_goes_on_until_asked(store: Rendezvous) -> None:
    assert at_times(store, None, 0.0, 1e9) == [False, False]
    assert store.get(keys.PAUSED) is None
    store.set(keys.PAUSE_ASKED, "preempted")
    assert at_times(store, None, 0.0) == [True]
    assert store.get(keys.PAUSED) == "preempted"


def test_the_end_is_asked_again_before_it_pauses_for_it(store: Rendezvous) -> None:
    """The limit was raised from 100 to 200 meanwhile, and is not changed once more."""
    clock, asked = iter((50.0, 95.0, 140.0)), []

    def ask() -> float:
        asked.append(200.0)
        return 200.0

    pause_ = Pause(store, ends_at=100.0, reserve_s=10.0, decides=True, ask_end=ask, clock=lambda: next(clock))
    assert [pause_.due(step) for step in range(3)] == [False, False, True]
    assert len(asked) == 2


def test_the_first_step_needs_the_reserve(store: Rendezvous) -> None:
    assert at_times(store, 100.0, 89.0) == [False]
    assert at_times(store, 100.0, 91.0) == [True]
    assert store.get(keys.PAUSED) == "timeout"


def test_the_first_step_needs_what_steps_of_earlier_attempts_took(store: Rendezvous) -> None:
    assert at_times(store, 100.0, 65.9, first_step_s=20.0) == [False]
    assert at_times(store, 100.0, 66.1, first_step_s=20.0) == [True]
    # from then on its own steps count: of 5 s, so the second needs 1.2 x 5 + 10 = 16 s
    assert at_times(store, 100.0, 60.0, 65.0, first_step_s=20.0) == [False, False]


def test_later_steps_need_as_long_as_the_longest_so_far_and_a_fifth(store: Rendezvous) -> None:
    # steps of 10, 20 and 5 s: the fourth needs 1.2 x 20 + 10 = 34 s
    assert at_times(store, 69.1, 0.0, 10.0, 30.0, 35.0) == [False, False, False, False]
    assert at_times(store, 68.9, 0.0, 10.0, 30.0, 35.0) == [False, False, False, True]


def test_other_ranks_do_as_rank_0_says(store: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = ["timeout", None]
    monkeypatch.setattr(pause, "broadcast", lambda value: said.pop(0))
    other = Pause(store, ends_at=0.0, reserve_s=10.0, decides=False)
    assert [other.due(0), other.due(1)] == [True, False]
    assert store.get(keys.PAUSED) is None
