"""What a sink of metrics is: told of a run's begin, its steps, its evaluations and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class RunInfo:
    """The run that a sink is told of.

    Attributes:
        name: of the run file.
        directory: the run directory; a sink may keep files in it.
        first_step: the first step of this attempt. What an earlier attempt told of this step and later ones is told
            again.
        num_steps: of the whole run.
        run_file: the resolved run file, as plain values; secrets in it are hidden.
    """

    name: str
    directory: Path
    first_step: int
    num_steps: int
    run_file: Mapping[str, Any]


@dataclass(frozen=True)
class ShownSample:
    """One response, to be looked at. The texts are the model's: they may hold markup, and anything else.

    Attributes:
        group, index: the prompt in the step; the sample in its group.
        reward: None: it has none, for the reason `failure`.
        truncated: whether the response was cut off at the limit.
    """

    group: int
    index: int
    reward: float | None
    truncated: bool
    failure: str
    prompt: str
    response: str


class Sink(Protocol):
    """Takes a run's metrics, in rank 0 of the trainers. The run waits for each call.

    A sink may raise: that is logged once, and the run goes on. One that shows samples, too, has a further method
    `samples(step, samples)`, which is called after `step` with a sequence of `ShownSample`: those of the highest and of
    the lowest reward.
    """

    def begin(self, run: RunInfo) -> None:
        """Called once per attempt, before all others."""
        ...

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called after each step, with its metrics: `train/loss`, `rollout/raw_reward`, …"""
        ...

    def evaluation(self, step: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """Called with the rates of each set, taken before step `step`: {"held_out": {"accuracy": 0.5}}."""
        ...

    def end(self) -> None:
        """Called when the attempt ends, complete or not, unless its process is killed."""
        ...


@runtime_checkable
class ShowsSamples(Protocol):
    """What a sink may have beside the methods of `Sink`."""

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Called after `step`, with those of the highest reward first and of the lowest last."""
        ...


def evaluation_scalars(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """An evaluation as named numbers: eval/SET for the accuracy, eval/SET-pass@4 for another rate."""
    return {
        f"eval/{name}" if rate == "accuracy" else f"eval/{name}-{rate}": value
        for name, rates in results.items()
        for rate, value in rates.items()
    }
