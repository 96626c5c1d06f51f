"""Seconds of a run, by phase: of each step, along the clock, and in all. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launchers.report.run_facts import RunFacts, Span

PHASE_ORDER = ("sync", "rollout", "score", "update", "eval", "save")
SHOWN_STEPS = 12  # of the time line
MOST_STEPS = 300  # of the times of steps; more are drawn as every n-th


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step, by phase."""

    step: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Bar:
    """A phase on the time line: seconds after its beginning."""

    phase: str
    began: float
    seconds: float


@dataclass(frozen=True)
class Total:
    """A phase over the whole run."""

    phase: str
    seconds: float
    share: float


def step_times(run: RunFacts) -> list[StepTimes]:
    """Seconds by phase of each step that was begun; of a repeated step all turns together."""
    steps: dict[int, dict[str, float]] = {}
    for span in _known(run.spans):
        if span.step is not None:
            seconds = steps.setdefault(span.step, {})
            seconds[span.phase] = seconds.get(span.phase, 0.0) + span.ended - span.began
    every = max(1, -(-len(steps) // MOST_STEPS))
    return [StepTimes(step, steps[step]) for step in sorted(steps)[::every]]


def time_line(run: RunFacts) -> list[Bar]:
    """The phases of the last steps, along the clock."""
    known = _known(run.spans)
    steps = sorted({span.step for span in known if span.step is not None})[-SHOWN_STEPS:]
    shown = [span for span in known if span.step in steps]
    begin = min((span.began for span in shown), default=0.0)
    return [Bar(span.phase, span.began - begin, span.ended - span.began) for span in shown]


def totals(run: RunFacts) -> list[Total]:
    """Seconds and share of each phase, the longest first."""
    seconds = {phase: 0.0 for phase in PHASE_ORDER}
    for span in _known(run.spans):
        seconds[span.phase] += span.ended - span.began
    whole = sum(seconds.values())
    found = [Total(phase, took, took / whole) for phase, took in seconds.items() if took > 0]
    return sorted(found, key=lambda total: -total.seconds)


def _known(spans: Sequence[Span]) -> list[Span]:
    return [span for span in spans if span.phase in PHASE_ORDER]
