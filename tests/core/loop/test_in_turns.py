"""The order of calls in the loop, with fakes behind the Protocols. The real parts run in tests/runs/."""

from __future__ import annotations

import pytest

from core.algorithm.batch import TooManyFailures
from core.loop.in_turns import run
from core.loop.state import LoopState
from core.reward import RewardsUnavailable
from tests.support.loop_fakes import Fakes

STEP_0 = ["push step0", "evaluate 0 step0", "evaluated 0", "generate train/0 step0", "settle", "update 1", "stepped 0"]
STEP_1 = ["push step1", "generate train/1 step1", "settle", "update 1", "stepped 1"]
AT_THE_END = ["push step2", "evaluate 2 step2", "evaluated 2"]


def test_two_steps_from_the_beginning() -> None:
    fakes = Fakes()
    assert run(fakes.parts)
    assert fakes.calls == [*STEP_0, *STEP_1, "save 2, 6 prompts", *AT_THE_END]
    assert fakes.names_of(0) == ["sync", "eval", "rollout", "score", "update"]
    assert fakes.names_of(1) == ["sync", "rollout", "score", "update", "save"]
    assert fakes.names_of(2) == ["sync", "eval"]


def test_resumed_in_the_middle() -> None:
    fakes = Fakes(LoopState(next_step=1, data_position=3))
    assert run(fakes.parts)
    assert fakes.calls == [*STEP_1, "save 2, 6 prompts", *AT_THE_END]


def test_resumed_after_the_last_step() -> None:
    fakes = Fakes(LoopState(next_step=2, data_position=6))
    assert run(fakes.parts)
    assert fakes.calls == AT_THE_END


def test_asked_to_pause_it_saves_what_it_has_and_begins_no_further_step() -> None:
    fakes = Fakes(pause_at=1)
    assert not run(fakes.parts)
    assert fakes.calls == [*STEP_0, "ensure 1"]
    assert fakes.names_of(1) == ["save"]


def test_too_many_failures_stop_the_run_after_a_checkpoint() -> None:
    fakes = Fakes(LoopState(next_step=1, data_position=3), reward=None)
    with pytest.raises(TooManyFailures, match="1x broken"):
        run(fakes.parts)
    assert fakes.calls == ["push step1", "generate train/1 step1", "settle", "ensure 1"]


def test_nobody_to_score_stops_the_run_after_a_checkpoint() -> None:
    fakes = Fakes(LoopState(next_step=1, data_position=3), unavailable=True)
    with pytest.raises(RewardsUnavailable, match="0 of 2"):
        run(fakes.parts)
    assert fakes.calls == ["push step1", "generate train/1 step1", "settle", "ensure 1"]
