"""The parts of a run of two steps, with nothing real behind the Protocols: who was called when, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from core.algorithm.batch import Batch
from core.loop.parts import Parts
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.reward import RewardsUnavailable
from core.rollout.request import Generated, Request
from core.rollout.rollout import Pending
from core.run_dir.moment import Moment
from core.samples import Prompt, Sample, SamplingParams, Status, TrainSample, UpdateResult

PROMPT = Prompt(row=0, text="p", tokens=(1,), label="x")
NUM_PROMPTS = 3


class Trainer:
    """Notes its updates; nothing else is asked of it."""

    def __init__(self, calls: list[str], updated: list[list[TrainSample]]) -> None:
        self.calls = calls
        self.updated = updated

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        self.calls.append(f"update {len(samples)}")
        self.updated.append(samples)
        return UpdateResult({}, [[]])

    def named_buckets(self, max_bytes: int) -> Any:
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        raise NotImplementedError

    def load(self, directory: Path) -> None:
        raise NotImplementedError

    def save_hf(self, directory: Path) -> None:
        raise NotImplementedError


class Sync:
    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def push(self, version: str) -> bool:
        self.calls.append(f"push {version}")
        return True


class Rollout:
    """One sample per step, with this reward; or nobody who scores it."""

    def __init__(self, calls: list[str], reward: float | None, unavailable: bool) -> None:
        self.calls = calls
        self.reward = reward
        self.unavailable = unavailable

    def generate(self, request: Request) -> Generated:
        self.calls.append(f"generate {request.key} {request.weight_version}")
        return Generated([PROMPT] * NUM_PROMPTS)

    def start(self, request: Request) -> Pending:
        raise NotImplementedError

    def settle(self, made: Generated) -> list[Sample]:
        self.calls.append("settle")
        if self.unavailable:
            raise RewardsUnavailable("0 of 2 reward servers answer")
        return [Sample(0, 0, PROMPT, [1], [-1.0], Status.COMPLETED, "v", reward=self.reward, failure="broken")]


class Evaluation:
    """Due at both ends of a run of two steps."""

    num_prompts: ClassVar[dict[str, int]] = {}

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def due(self, step: int) -> bool:
        return step in (0, 2)

    def run(self, step: int, weight_version: str) -> dict[str, dict[str, float]]:
        self.calls.append(f"evaluate {step} {weight_version}")
        return {}


class Journal:
    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def evaluated(self, step: int, results: dict[str, dict[str, float]]) -> None:
        self.calls.append(f"evaluated {step}")

    def stepped(self, step: int, batch: Batch, result: UpdateResult, times: dict[str, float]) -> None:
        assert batch.on_policy
        self.calls.append(f"stepped {step}")


class Checkpoints:
    """Due after the second step."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def due(self, step: int) -> bool:
        return step == 2

    def ensure(self, state: LoopState) -> None:
        self.calls.append(f"ensure {state.next_step}")

    def save(self, state: LoopState) -> Path:
        self.calls.append(f"save {state.next_step}, {state.data_position} prompts")
        return Path()

    def wait(self, timeout_s: float | None = None) -> None:
        self.calls.append("wait")


class Pause:
    def __init__(self, at: int | None) -> None:
        self.at = at

    def due(self, step: int) -> bool:
        return step == self.at


class Fakes:
    """The parts of a run of two steps, who was called when, and which phases were entered."""

    def __init__(
        self,
        state: LoopState | None = None,
        *,
        reward: float | None = 1.0,
        pause_at: int | None = None,
        unavailable: bool = False,
    ) -> None:
        self.calls: list[str] = []
        self.phases: list[Moment] = []
        self.updated: list[list[TrainSample]] = []
        self.parts = Parts(
            phase=Phases(self.phases.append, quiet=True),
            state=state or LoopState(),
            trainer=Trainer(self.calls, self.updated),
            sync=Sync(self.calls),
            rollout=Rollout(self.calls, reward, unavailable),
            evaluation=Evaluation(self.calls),
            journal=Journal(self.calls),
            checkpoints=Checkpoints(self.calls),
            pause=Pause(pause_at),
            advantages=lambda rewards, groups, valid: torch.zeros(len(rewards)),
            request=request,
            max_failed_share=0.0,
            num_steps=2,
        )

    def names_of(self, step: int) -> Sequence[str]:
        """The phases of a step, in order."""
        return [moment.phase for moment in self.phases if moment.step == step]


def request(state: LoopState, weight_version: str) -> Request:
    key = f"train/{state.next_step}"
    return Request(key, [PROMPT] * NUM_PROMPTS, 1, lambda group, index: SamplingParams(4), weight_version)
