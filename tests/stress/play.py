"""A case from its first attempt to its last: faults at their moments, resumed until it is complete, judged."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.loop.manifest import find_latest
from tests.stress.case import Case, Fault, Moment
from tests.stress.judge import End, judge_files, judge_ledger, judge_losses, judge_lost, judge_said
from tests.support.slurm_runs import attempts
from tests.support.tiny_runs import events

ATTEMPT_DEADLINE_S = 600.0  # of an attempt, on a machine that others use, too
MOST_RESUMES = 3  # or as many as there are faults
MENDED_AFTER_S = 25.0  # a full disk has room again
POLL_S = 0.1

WRITTEN = re.compile(r"write_seconds=([\d.]+)")


class World(Protocol):
    """Where a case is played."""

    run_dir: Path
    guilty: list[str]
    told: str  # all that was said, for whoever looks at a violation

    def begin(self) -> None:
        """Start the run, or go on with it."""

    def has_ended(self) -> bool:
        """Whether nothing goes on by itself any more."""

    def act(self, fault: Fault) -> bool:
        """Do it; False: there is nothing yet that it could be done to."""

    def mend(self) -> None:
        """Take back what does not go away by itself."""

    def said(self) -> str:
        """What the user is told of an end; empty: nobody was left to tell."""

    def left(self) -> Iterator[str]:
        """What is left on the machines, in words."""

    def end(self) -> None:
        """End it by force."""


@dataclass
class Story:
    """What has come of a case so far."""

    case: Case
    done: list[str] = field(default_factory=list)  # faults, as they happened
    violations: list[str] = field(default_factory=list)
    resumes: int = 0
    ends: list[End] = field(default_factory=list)
    num_steps: int = 0  # of which an event tells, at earlier ends
    began: float = field(default_factory=time.monotonic)

    def ended(self, run_dir: Path) -> None:
        """Note what an end has cost."""
        steps = events(run_dir, "step")
        since, self.num_steps = steps[self.num_steps :], len(steps)
        found = find_latest(run_dir / "checkpoints")
        kept = found[1].next_step if found else 0
        complete = since[-1]["step"] + 1 if since else kept
        lost = [step["time"] for step in since if step["step"] >= kept]
        save_s = max((step["metrics"].get("perf/save_time", 0.0) for step in steps), default=0.0)
        span_s = lost[-1] - lost[0] if lost else 0.0
        self.ends.append(
            End(self.done[-1] if self.done else "none", complete, len(lost), span_s, save_s, _write_s(run_dir))
        )

    def line(self, run_dir: Path) -> dict[str, Any]:
        """The line of the seed."""
        ends = [f"{attempt.how}: {attempt.cause}" if attempt.cause else attempt.how for attempt in attempts(run_dir)]
        return {
            **self.case.told(),
            "done": self.done,
            "outcome": ends,
            "resumes": self.resumes,
            "ends": [end._asdict() for end in self.ends],
            "seconds": round(time.monotonic() - self.began),
            "violations": self.violations,
        }


def play(case: Case, world: World, undisturbed: Mapping[int, float]) -> dict[str, Any]:
    """Play it to its end."""
    story = Story(case)
    try:
        _until_complete(story, world)
        if _complete(world):
            story.violations += judge_losses(world.run_dir, undisturbed)
            story.violations += judge_files(world.run_dir)
            story.violations += judge_lost(story.case, story.ends)
            story.violations += world.left()
        story.violations += judge_ledger(case, world.run_dir, world.guilty)
    except Exception as error:
        story.violations.append(f"the program itself: {type(error).__name__}: {error}")
    return story.line(world.run_dir)


def _until_complete(story: Story, world: World) -> None:
    queue = list(story.case.faults)
    asked, seen, num_attempts = time.monotonic(), 0, 0  # what the moment of the next fault counts from
    hurt: float | None = None
    world.begin()
    deadline = time.monotonic() + ATTEMPT_DEADLINE_S
    while True:
        if queue and _reached(queue[0][0], asked, seen, world.run_dir) and len(_attempts(world)) >= num_attempts:
            moment, fault = queue[0]
            if world.act(fault):
                queue.pop(0)
                story.done.append(f"{fault}, {moment}")
                hurt = hurt or time.monotonic()
                if not story.case.together:
                    asked, seen = time.monotonic(), len(events(world.run_dir, "phase"))
                    num_attempts = len(_attempts(world)) + 1
        if world.has_ended():
            world.mend()
            if _complete(world):
                return
            if said := world.said():
                world.told += said
                story.violations += judge_said(said, f"end {story.resumes + 1}")
            story.ended(world.run_dir)
            if story.resumes == max(MOST_RESUMES, len(story.case.faults)):
                return
            story.resumes += 1
            hurt = None
            world.begin()
            asked, seen = time.monotonic(), len(events(world.run_dir, "phase"))
            deadline = time.monotonic() + ATTEMPT_DEADLINE_S
        if hurt is not None and time.monotonic() > hurt + MENDED_AFTER_S:
            world.mend()
            hurt = None
        if time.monotonic() > deadline:
            story.violations.append(f"still there after {ATTEMPT_DEADLINE_S:.0f} s")
            world.end()
            return
        time.sleep(POLL_S)


def _reached(moment: Moment, asked: float, seen: int, run_dir: Path) -> bool:
    if moment.phase is None:
        return time.monotonic() >= asked + moment.after_s
    entered = [event for event in events(run_dir, "phase")[seen:] if event["step"] is not None]
    fitting = [event for event in entered if event["phase"] == moment.phase and event["step"] >= moment.step]
    return bool(fitting) and time.time() >= fitting[0]["time"] + moment.after_s


def _attempts(world: World) -> tuple[Any, ...]:
    return attempts(world.run_dir)


def _complete(world: World) -> bool:
    found = _attempts(world)
    return bool(found) and found[-1].how == "complete"


def _write_s(run_dir: Path) -> float:
    """What the slowest checkpoint so far took to be on the disk, by the first rank's logs."""
    logs = [path.read_text(errors="replace") for path in run_dir.glob("attempts/[0-9]*/trainer-0.log")]
    return max((float(seconds) for log in logs for seconds in WRITTEN.findall(log)), default=0.0)
