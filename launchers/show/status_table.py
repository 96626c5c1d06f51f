"""How a run's status is shown: one run in full, several as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from launchers.attempts.history import Attempt
from launchers.attempts.provenance import Provenance
from launchers.show.plain_text import visible
from launchers.show.run_state import RunState
from launchers.show.run_status import Status
from launchers.show.short_path import short_path

STYLES = {
    RunState.RUNNING: "green",
    RunState.COMPLETE: "bold green",
    RunState.FAILED: "bold red",
    RunState.LOST: "bold red",
    RunState.PENDING: "yellow",
}
LEAST_NAME = 20  # characters of a run's name, however narrow the terminal is
CUT_COLUMNS = ("run", "reason")
MAY_LACK = ("phase", "time left", "reason")
COLUMNS = ("run", "state", "attempt", "step", "phase", "step time", "reward", "time left", "reason")


def one(status: Status, provenance: Provenance | None = None, engines: str = "") -> RenderableType:
    """Everything about one run; `provenance` is that of its newest attempt, `engines` what these compute with."""
    table = Table.grid(padding=(0, 2))
    made_with = {} if provenance is None else {"code": provenance.code_text, "machine": provenance.machine_text}
    seen = {"report": f"ebbtide report {short_path(status.directory.path)}"} if status.advance.steps_done else {}
    for name, value in {**_fields(status), **made_with, "engines": engines, **seen}.items():
        if value:
            table.add_row(
                Text(name, style="bold"), Text(visible(value), style=_style(status) if name == "state" else "")
            )
    attempts = status.history.attempts
    return Group(table, *([_attempts(attempts, status)] if attempts else []))


def many(statuses: Sequence[Status]) -> Table:
    """One line per run, also on a narrow terminal: names are cut in their middle, reasons at their end.

    A column in which no run has anything is left out.
    """
    rows = [_cells(status) for status in statuses]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings = [name for name in COLUMNS if name not in MAY_LACK or any(row[name] for row in rows)]
    for name in headings:
        right = name in ("attempt", "step time", "reward")
        least = min(LEAST_NAME, max(cell_len(row["run"]) for row in rows)) if name == "run" and rows else None
        table.add_column(name, justify="right" if right else "left", no_wrap=name not in CUT_COLUMNS, min_width=least)
    for row, status in zip(rows, statuses, strict=True):
        shown: dict[str, RenderableType] = {
            **{name: text or "-" for name, text in row.items()},
            "run": CutName(row["run"]),
            "state": Text(row["state"], style=_style(status)),
            "reason": Text(row["reason"], no_wrap=True, overflow="ellipsis"),
        }
        table.add_row(*(shown[name] for name in headings))
    return table


def _cells(status: Status) -> dict[str, str]:
    """Heading -> text; empty where there is nothing to tell."""
    advance, last = status.advance, status.history.last
    return {
        "run": visible(status.directory.path.name),
        "state": str(status.state),
        "attempt": str(last.number) if last else "",
        "step": f"{advance.steps_done}/{advance.num_steps}" if advance.num_steps else "",
        "phase": (advance.phase or "") if status.state == RunState.RUNNING else "",
        "step time": "" if advance.step_time_s is None else f"{advance.step_time_s:.1f} s",
        "reward": "" if advance.reward is None else f"{advance.reward:.3f}",
        "time left": "" if status.left_s is None else duration(status.left_s),
        "reason": visible(status.reason.partition("\n")[0]),
    }


@dataclass(frozen=True)
class CutName:
    """A name in one line: where it is too long, its middle is left out, for names begin and end with what tells."""

    name: str

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(LEAST_NAME, cell_len(self.name)), min(cell_len(self.name), options.max_width))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(cut_middle(self.name, options.max_width), no_wrap=True, overflow="ellipsis")


def cut_middle(text: str, most: int) -> str:
    """`smollm2-…-160736`: at most this many columns of a terminal."""
    end, begin = text[len(text) // 2 :], text[: len(text) // 2]
    if cell_len(text) <= most:
        return text
    while begin and cell_len(begin) + cell_len(end) > most - 1:
        begin, end = (begin[:-1], end) if cell_len(begin) >= cell_len(end) else (begin, end[1:])
    return f"{begin}…{end}"


def steps(status: Status) -> str:
    """`5 of 12`; `-` before the start, and where a run only evaluates."""
    advance = status.advance
    return f"{advance.steps_done} of {advance.num_steps}" if advance.num_steps else "-"


def number(value: float | None, spec: str, unit: str = "") -> str:
    """A number, or `-`."""
    return "-" if value is None else format(value, spec) + unit


def duration(seconds: float) -> str:
    """`H:MM:SS`, as Slurm does; days before it."""
    whole = max(0, round(seconds))
    days, hours = divmod(whole // 3600, 24)
    text = f"{hours}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{days}-{text}" if days else text


def moment(epoch_s: float) -> str:
    """A point in time, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))


def _fields(status: Status) -> dict[str, str]:
    advance, last = status.advance, status.history.last
    job = f"job {status.job_id}" if status.job_id else ""
    where = f"on {', '.join(status.nodes)}" if status.nodes and status.live else ""
    resume = "submit --resume" if status.job_id else "resume"
    running = status.state == RunState.RUNNING
    phase = f", {advance.phase}" if running and advance.phase else ""
    since = f" for {duration(status.now - advance.phase_began)}" if phase and advance.phase_began else ""
    done = f"{steps(status)} done" if advance.num_steps else ""
    return {
        "run": str(status.directory.path),
        "state": " ".join(part for part in (status.state, job, where) if part),
        "reason": status.reason,
        "step": f"{done}{phase}{since}".removeprefix(", "),
        "last step": "" if advance.step_time_s is None else f"{advance.step_time_s:.1f} s",
        "reward": number(advance.reward, ".3f") if advance.reward is not None else "",
        "time left": duration(status.left_s) if status.left_s is not None else "",
        "failed nodes": ", ".join(last.failed_nodes) if last else "",
        "go on": ""
        if status.live or status.history.complete
        else f"ebbtide {resume} {short_path(status.directory.path)}",
    }


def _attempts(attempts: Sequence[Attempt], status: Status) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("attempt", "began", "lasted", "steps", "how it ended", "where"):
        table.add_column(heading, justify="right" if heading in ("attempt", "lasted", "steps") else "left")
    for attempt in attempts:
        table.add_row(
            str(attempt.number),
            moment(attempt.began),
            duration((attempt.ended or status.now) - attempt.began),
            "-" if attempt.steps_done is None else str(attempt.steps_done),
            attempt.how or _without_end(attempt, status),
            ", ".join(attempt.nodes) or attempt.host,
        )
    return table


def _without_end(attempt: Attempt, status: Status) -> str:
    """What is said of an attempt whose end nobody wrote: it goes on, or nobody was left, as the ledger says later."""
    goes_on = attempt is status.history.last and (status.state.at_work or status.state == RunState.UNKNOWN)
    return "-" if goes_on else str(RunState.LOST)


def _style(status: Status) -> str:
    return STYLES.get(status.state, "")
