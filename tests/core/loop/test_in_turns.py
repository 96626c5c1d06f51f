"""The order of calls in the loop, with fakes behind the Protocols. The real parts run in tests/runs/."""

from __future__ import annotations

from typing import Any, cast

import pytest

from core.algorithm.batch import TooManyFailures
from core.config.schema import AlgorithmConfig
from core.loop import in_turns as loop
from core.loop.parts import Parts
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.reward import RewardsUnavailable
from core.rollout.rollout import Generated, Request
from core.samples import Prompt, Sample, SamplingParams, Status, UpdateResult

PROMPT = Prompt(row=0, text="p", tokens=(1,), label="x")


class Fakes:
    """Every part of the loop, noting who was called when."""

    def __init__(self, reward: float | None = 1.0, pause_at: int | None = None) -> None:
        self.calls: list[str] = []
        self.reward = reward
        self.pause_at = pause_at

    def push(self, version: str) -> bool:
        self.calls.append(f"sync {version}")
        return True

    def request(self, state: LoopState) -> Request:
        return Request(str(state.next_step), [PROMPT] * 3, 1, lambda g, i: SamplingParams(4), state.weight_version)

    def generate(self, request: Request) -> Generated:
        self.calls.append(f"generate {request.key}")
        return Generated()

    def settle(self, made: Generated) -> list[Sample]:
        self.calls.append("settle")
        return [Sample(0, 0, PROMPT, [1], [-1.0], Status.COMPLETED, "v", reward=self.reward, failure="broken")]

    def update(self, samples: list[Any]) -> UpdateResult:
        self.calls.append(f"update {len(samples)}")
        return UpdateResult({}, [[]])

    def due(self, step: int) -> bool:
        return step in (0, 2)

    def ensure(self, state: LoopState) -> None:
        self.calls.append(f"ensure {state.next_step}")

    def run(self, state: LoopState) -> dict[str, dict[str, float]]:
        self.calls.append(f"eval {state.next_step}")
        return {}

    def save(self, state: LoopState) -> None:
        self.calls.append(f"save {state.next_step} {state.data_position}")

    def evaluated(self, step: int, results: Any) -> None:
        self.calls.append(f"evaluated {step}")

    def stepped(self, step: int, *record: Any) -> None:
        self.calls.append(f"stepped {step}")


class FakePause:
    def __init__(self, at: int | None) -> None:
        self.at = at

    def due(self, step: int) -> bool:
        return step == self.at


def parts(fakes: Fakes, state: LoopState, phases: list[str]) -> Parts:
    fake: Any = fakes
    return Parts(
        phase=Phases(phases.append, quiet=True),
        state=state,
        trainer=fake,
        sync=fake,
        rollout=fake,
        evaluation=fake,
        journal=fake,
        checkpoints=fake,
        pause=cast(Any, FakePause(fakes.pause_at)),
        algorithm=AlgorithmConfig(),
        request=fakes.request,
        max_failed_share=0.0,
        num_steps=2,
    )


def test_two_steps_from_the_beginning() -> None:
    fakes, phases = Fakes(), []
    assert loop.run(parts(fakes, LoopState(), phases))
    step = "generate {0}|settle|update 1|stepped {0}"
    first = f"sync step0|eval 0|evaluated 0|{step.format(0)}"
    second = f"sync step1|{step.format(1)}|save 2 6"
    assert "|".join(fakes.calls) == f"{first}|{second}|sync step2|eval 2|evaluated 2"
    assert phases[:5] == ["sync step=0", "eval step=0", "rollout step=0", "score step=0", "update step=0"]


def test_resumed_in_the_middle_and_after_the_end() -> None:
    fakes = Fakes()
    loop.run(parts(fakes, LoopState(next_step=1, data_position=3), []))
    assert fakes.calls[:2] == ["sync step1", "generate 1"]
    finished = Fakes()
    loop.run(parts(finished, LoopState(next_step=2, data_position=6), []))
    assert finished.calls == ["sync step2", "eval 2", "evaluated 2"]


def test_asked_to_pause_it_saves_what_it_has_and_begins_no_further_step() -> None:
    fakes, phases = Fakes(pause_at=1), []
    assert not loop.run(parts(fakes, LoopState(), phases))
    assert fakes.calls[-2:] == ["stepped 0", "ensure 1"]
    assert phases[-1] == "save step=1"


def test_too_many_failures_stop_the_run_after_a_checkpoint() -> None:
    fakes = Fakes(reward=None)
    with pytest.raises(TooManyFailures, match="1x broken"):
        loop.run(parts(fakes, LoopState(next_step=1, data_position=3), []))
    assert fakes.calls[-2:] == ["settle", "ensure 1"]


def test_nobody_to_score_stops_the_run_after_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(made: Generated) -> list[Sample]:
        raise RewardsUnavailable("0 of 2 reward servers answer")

    fakes = Fakes()
    monkeypatch.setattr(fakes, "settle", unavailable)
    with pytest.raises(RewardsUnavailable, match="0 of 2"):
        loop.run(parts(fakes, LoopState(next_step=1, data_position=3), []))
    assert fakes.calls[-2:] == ["generate 1", "ensure 1"]
