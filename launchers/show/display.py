"""What the terminal shows of a running attempt, and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.status import Status
from rich.table import Table

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import moment_of
from launchers.attempts.failure import Failure

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
STEPS_WITHOUT_SPREAD = 3  # after this number of them in a row it is said
PHASE_WORDS = {"sync": "weight sync", "eval": "evaluation", "save": "checkpoint"}


class Display:
    """Live progress on a terminal, plain lines elsewhere; a table of all steps at the end."""

    def __init__(self, console: Console, first: str = "starting") -> None:
        self._console = console
        self._status: Status | None = None
        self._num_steps = 0
        self._phase = first
        self._without_spread = 0
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
            self._status.update(f"{self._phase} · {time.monotonic() - self._began:.0f} s")

    def note(self, text: str) -> None:
        """A line of its own."""
        self._phase = text
        self._print(text)

    def failed(self, failure: Failure | None, run_dir: Path, folder: Path, resume: str = "ebbtide resume") -> None:
        """What went wrong and what can be done; `resume` is the command that goes on with the run."""
        agent_log = AttemptFolder(folder).agent_log(0)
        what = str(failure) if failure else f"the node agent died without a record; see {agent_log}"
        self._console.print(f"[bold red]failed[/]: {_plain(what)}", highlight=False, soft_wrap=True)
        self._console.print(f"all logs: {folder}", highlight=False, soft_wrap=True)
        self._console.print(f"after mending it: {resume} {run_dir}", highlight=False, soft_wrap=True)

    def interrupted(self, run_dir: Path, saved: str) -> None:
        """Stopped by the user; `saved` says what is not lost."""
        text = f"stopped: {saved}. Go on with: ebbtide resume {run_dir}"
        self._console.print(text, highlight=False, soft_wrap=True)

    def _on_begin(self, event: dict[str, Any]) -> None:
        self._num_steps = event["num_steps"]
        self._print(f"ready: {self._num_steps - event['step']} of {self._num_steps} steps to go")

    def _on_phase(self, event: dict[str, Any]) -> None:
        at = moment_of(event)
        self._phase = f"step {at.step} of {self._num_steps} · {PHASE_WORDS.get(at.phase, at.phase)}"

    def _on_step(self, event: dict[str, Any]) -> None:
        cells = {heading: _cell(event["metrics"], *column) for heading, column in COLUMNS.items()}
        told = "reward" if COLUMNS["reward"][0] in event["metrics"] else "loss"
        self._print(
            f"step {event['step']:>3}  {told} {cells[told]}  length {cells['length']}  "
            f"{cells['total']} s (rollout {cells['rollout']}, update {cells['update']})"
        )
        self._say_if_nothing_is_learnt(event["metrics"].get("rollout/zero_std/ratio", 0.0))

    def _say_if_nothing_is_learnt(self, ratio: float) -> None:
        """One line when all samples of every prompt have had the same reward for some steps."""
        self._without_spread = self._without_spread + 1 if ratio == 1.0 else 0
        if self._without_spread == STEPS_WITHOUT_SPREAD:
            self._print(f"no group had a spread in {STEPS_WITHOUT_SPREAD} steps: with equal rewards nothing is learnt")

    def _on_eval(self, event: dict[str, Any]) -> None:
        for name, rates in event["results"].items():
            rate_texts = "  ".join(f"{rate} {value:.3f}" for rate, value in rates.items())
            self._print(f"evaluation of {name} before step {event['step']}: {rate_texts}")

    def _print(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.0f} s  {text}", highlight=False, markup=False)


def summary(events: Iterable[dict[str, Any]]) -> Group:
    """The table of all steps, and the evaluations, of all attempts; of a repeated step the last counts."""
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
    return Group(_step_table(steps), *([_eval_table(evaluations, num_steps)] if evaluations else []))


def _step_table(steps: dict[int, dict[str, float]]) -> Table:
    table = Table(
        title="steps", caption=LEGEND, box=SIMPLE_HEAD, caption_justify="left", title_justify="left", padding=0
    )
    for heading in ("step", *COLUMNS):
        table.add_column(heading, justify="right", min_width=7, no_wrap=True)
    for step, metrics in sorted(steps.items()):
        table.add_row(str(step), *(_cell(metrics, *column) for column in COLUMNS.values()))
    return table


def _eval_table(evaluations: dict[int, dict[str, dict[str, float]]], num_steps: int) -> Table:
    is_loss = any("loss" in rates for results in evaluations.values() for rates in results.values())
    title, shown = ("mean loss of a token", "loss") if is_loss else ("share of right answers", "accuracy")
    table = Table(title=f"evaluation: {title}", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("set")
    for step in sorted(evaluations):
        table.add_column(f"before step {step}" if step < num_steps else "at the end", justify="right")
    for name in sorted({name for results in evaluations.values() for name in results}):
        rates = (evaluations[step].get(name, {}) for step in sorted(evaluations))
        table.add_row(name, *(_cell(rate, shown, ".3f") for rate in rates))
    return table


def _cell(metrics: dict[str, float], name: str, spec: str) -> str:
    return format(metrics[name], spec) if name in metrics else "-"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
