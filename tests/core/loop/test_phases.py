from __future__ import annotations

import pytest

from core.loop.phases import Phases
from core.run_dir.moment import Moment


def test_phases_are_announced_timed_and_added_up() -> None:
    said: list[Moment] = []
    phases = Phases(said.append, quiet=True)
    names = ("sync", "eval", "rollout", "sync", "update")
    for name in names:
        with phases(name, 3):
            pass
    assert said == [Moment(name, 3) for name in names]
    assert phases.current == Moment("after update", 3)
    times = phases.take_times()
    parts = ("perf/update_weights_time", "perf/rollout_time", "perf/train_time")
    assert times["perf/step_time"] == pytest.approx(sum(times[name] for name in parts))
    assert set(times) == {*parts, "perf/eval_time", "perf/step_time"}
    assert phases.take_times() == {"perf/step_time": 0}


def test_a_failed_phase_stays_the_current_one_for_the_failure_record() -> None:
    phases = Phases(lambda _: None, quiet=True)
    with pytest.raises(RuntimeError), phases("update", 1):
        raise RuntimeError
    assert phases.current == Moment("update", 1)


def test_unknown_phases_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="wanted one of sync, rollout, score, update, eval, save"),
        Phases(print)("lunch", 0),
    ):
        pass
