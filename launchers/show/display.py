"""What the terminal shows of a running attempt, and at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.status import Status
from rich.table import Table
from rich.text import Text

from common.duration import in_short
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import moment_of
from launchers.attempts.failure import Failure
from launchers.show.short_path import short_path

COLUMNS = {  # heading -> metric, format; narrow enough for 80 characters
    "reward": ("rollout/raw_reward", ".3f"),
    "loss": ("train/loss", ".4f"),
    "grad": ("train/grad_norm", ".2f"),
    "gap": ("train/train_rollout_logprob_abs_diff", ".0e"),
    "length": ("rollout/response_len/mean", ".1f"),
    "sync": ("perf/update_weights_time", ".1f"),
    "rollout": ("perf/rollout_time", ".1f"),
    "update": ("perf/train_time", ".1f"),
    "total": ("perf/step_time", ".1f"),
}
LEGEND = (
    "reward: mean over the samples; grad: norm before clipping; gap: mean |log-prob\n"
    "difference| of engine and trainer; length: response tokens; the rest: seconds"
)
MOST_ROWS = 20  # of each table at the end: the last
PACE_STEPS = 20  # steps by whose pace the rest is foretold
BAR_WIDTH = 16
STEPS_WITHOUT_SPREAD = 3  # after this number of them in a row it is said
NOT_SHOWN = ("response_len", "truncated_ratio", "turns/mean", "tool_calls/valid_ratio")  # of an evaluation, in its line
PHASE_WORDS = {"sync": "weight sync", "eval": "evaluation", "save": "checkpoint"}


class Display:
    """Live progress on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, first: str = "starting") -> None:
        self._console = console
        self._status: Status | None = None
        self._num_steps = 0
        self._phase = first
        self._without_spread = 0
        self._pace = Pace()
        self._began = time.monotonic()

    def __enter__(self) -> Display:
        self._status = self._console.status(self._phase) if self._console.is_terminal else None
        if self._status:
            self._status.start()
        else:
            self._console.print(self._phase)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def show(self, events: Iterable[dict[str, Any]]) -> None:
        """Show what is new."""
        for event in events:
            handler = getattr(self, f"_on_{event['event']}", None)
            if handler:
                handler(event)
        if self._status:
            self._status.update(Group(self._now()))  # a bare text would be joined with the spinner, and folded

    def _now(self) -> Text:
        """step 12 of 300 · rollout · ━─────────  4 % · ETA 1 h 05 · 360 s: one line, however narrow."""
        parts = [self._phase, f"{time.monotonic() - self._began:.0f} s"]
        if self._pace.done:
            share = self._pace.done / max(self._num_steps, 1)
            filled = round(share * BAR_WIDTH)
            parts[1:1] = [f"{'━' * filled}{'─' * (BAR_WIDTH - filled)} {share:4.0%}", self._pace.told(self._num_steps)]
        return Text(" · ".join(filter(None, parts)), no_wrap=True, overflow="ellipsis")

    def note(self, text: str) -> None:
        """A line of its own."""
        self._phase = text
        self._print(text)

    def failed(self, failure: Failure | None, run_dir: Path, folder: Path, resume: str = "ebbtide resume") -> None:
        """What went wrong and what can be done; `resume` is the command that goes on with the run."""
        agent_log = AttemptFolder(folder).agent_log(0)
        what = str(failure) if failure else f"the node agent died without a record; see {agent_log}"
        self._console.print(f"[bold red]failed[/]: {_plain(what)}", highlight=False, soft_wrap=True)
        self._console.print(f"all logs: {short_path(folder)}", highlight=False, soft_wrap=True)
        self._console.print(f"after mending it: {resume} {short_path(run_dir)}", highlight=False, soft_wrap=True)

    def interrupted(self, run_dir: Path, saved: str) -> None:
        """Stopped by the user; `saved` says what is not lost."""
        text = f"stopped: {saved}.\nGo on with: ebbtide resume {short_path(run_dir)}"
        self._console.print(text, highlight=False, soft_wrap=True)

    def _on_begin(self, event: dict[str, Any]) -> None:
        self._num_steps = event["num_steps"]
        to_go = f": {self._num_steps - event['step']} of {self._num_steps} steps to go" if self._num_steps else ""
        self._print(f"ready{to_go}")

    def _on_phase(self, event: dict[str, Any]) -> None:
        at = moment_of(event)
        of_all = f" of {self._num_steps}" if self._num_steps else ""
        self._phase = f"step {at.step}{of_all} · {PHASE_WORDS.get(at.phase, at.phase)}"

    def _on_step(self, event: dict[str, Any]) -> None:
        cells = {heading: _cell(event["metrics"], *column) for heading, column in COLUMNS.items()}
        told = "reward" if COLUMNS["reward"][0] in event["metrics"] else "loss"
        self._pace.stepped(event, event["metrics"].get(COLUMNS["total"][0], 0.0))
        of_all = f"{self._pace.done}/{self._num_steps}" if self._num_steps else ""
        figures = f"{told} {cells[told]}", f"length {cells['length']}", f"{cells['total']} s"
        parts = [f"step {event['step']:>3}", of_all, *figures, self._pace.told(self._num_steps)]
        self._print("  ".join(filter(None, parts)))
        self._say_if_nothing_is_learnt(event["metrics"].get("rollout/zero_std/ratio", 0.0))

    def _say_if_nothing_is_learnt(self, ratio: float) -> None:
        """One line when all samples of every prompt have had the same reward for some steps."""
        self._without_spread = self._without_spread + 1 if ratio == 1.0 else 0
        if self._without_spread == STEPS_WITHOUT_SPREAD:
            self._print(f"no group had a spread in {STEPS_WITHOUT_SPREAD} steps: with equal rewards nothing is learnt")

    def _on_eval(self, event: dict[str, Any]) -> None:
        for name, rates in event["results"].items():
            shown = (rate for rate in rates if rate not in NOT_SHOWN and not _is_accuracy(rates, rate))
            rate_texts = "  ".join(f"{rate} {rates[rate]:.3f}" for rate in shown)
            self._print(f"evaluation of {name} before step {event['step']}: {rate_texts}")

    def _print(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:6.0f} s  {text}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)


class Pace:
    """How fast steps go, by the times at which the last of them ended."""

    def __init__(self) -> None:
        self.done = 0
        self._ends: deque[float] = deque(maxlen=PACE_STEPS + 1)
        self._first_s = 0.0

    def stepped(self, event: Mapping[str, Any], step_s: float) -> None:
        """Note a step's end; `step_s` is what counts until there is a second one."""
        self.done = event["step"] + 1
        self._first_s = self._first_s or step_s
        if "time" in event:
            self._ends.append(event["time"])

    def told(self, num_steps: int) -> str:
        """ETA 1 h 05; nothing where nothing is left, or nothing is known."""
        apart = [after - before for before, after in pairwise(self._ends)]
        left_s = (num_steps - self.done) * (median(apart) if apart else self._first_s)
        return f"ETA {in_short(left_s)}" if self.done and left_s > 0 else ""


def summary(events: Iterable[dict[str, Any]]) -> Group:
    """The tables of the last steps and evaluations, of all attempts; of a repeated step the last counts."""
    steps: dict[int, dict[str, float]] = {}
    evaluations: dict[int, dict[str, dict[str, float]]] = {}
    num_steps = 0
    for event in events:
        if event["event"] == "step":
            steps[event["step"]] = event["metrics"]
        elif event["event"] == "eval":
            evaluations[event["step"]] = event["results"]
        elif event["event"] == "begin":
            num_steps = event["num_steps"]
    return Group(*(_step_table(steps) if steps else ()), *(_eval_table(evaluations, num_steps) if evaluations else ()))


def _step_table(steps: dict[int, dict[str, float]]) -> tuple[Text, Table]:
    title = "steps" if len(steps) <= MOST_ROWS else f"the last {MOST_ROWS} of {len(steps)} steps"
    table = Table(caption=LEGEND, box=SIMPLE_HEAD, caption_justify="left", padding=0)
    for heading in ("step", *COLUMNS):
        table.add_column(heading, justify="right", min_width=7, no_wrap=True)
    for step, metrics in sorted(steps.items())[-MOST_ROWS:]:
        table.add_row(str(step), *(_cell(metrics, *column) for column in COLUMNS.values()))
    return _title(title), table


def _eval_table(evaluations: dict[int, dict[str, dict[str, float]]], num_steps: int) -> tuple[Text, Table]:
    """A row for each set of an evaluation, a column for each rate."""
    rows = [(step, name, rates) for step, results in sorted(evaluations.items()) for name, rates in results.items()]
    shown = list(dict.fromkeys(rate for _, _, rates in rows for rate in rates))
    what = "mean loss of a token" if "loss" in shown else "share of answers with a reward above 0.5"
    last = "" if len(rows) <= MOST_ROWS else f", the last {MOST_ROWS} of {len(rows)}"
    table = Table(box=SIMPLE_HEAD)
    for heading in ("before step", "set", *shown):
        table.add_column(heading, justify="left" if heading == "set" else "right", no_wrap=True)
    for step, name, rates in rows[-MOST_ROWS:]:
        when = str(step) if step < num_steps or not num_steps else "end"
        table.add_row(when, name, *(_cell(rates, rate, ".3f") for rate in shown))
    return _title(f"evaluation: {what}{last}"), table


def _title(text: str) -> Text:
    """A title may be wider than its table: a table would fold it."""
    return Text(text, style="italic", no_wrap=True)


def _cell(metrics: dict[str, float], name: str, spec: str) -> str:
    return format(metrics[name], spec) if name in metrics else "-"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _is_accuracy(rates: Mapping[str, float], rate: str) -> bool:
    """Whether a mean reward says nothing that the accuracy does not: all rewards are 0 or 1."""
    return rate == "reward" and rates[rate] == rates.get("accuracy")
