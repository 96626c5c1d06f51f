"""The page: facts, pictures and samples of one or several runs, through one template. Everything is escaped."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.provenance import Provenance
from launchers.report.curves import Chart, charts
from launchers.report.drawing import NUM_COLOURS, draw, draw_step_times, draw_time_line
from launchers.report.made_with import made_with
from launchers.report.memory import PhaseMemory, memory_by_phase
from launchers.report.phases import PHASE_ORDER, Total, step_times, time_line, totals
from launchers.report.run_facts import RunFacts, read_runs
from launchers.report.samples import ShownSample, choose_samples
from launchers.report.settings import chosen, differing, text
from launchers.report.verdict import state_word, things_to_look_at, verdict
from launchers.report.words import time_words
from launchers.show.plain_text import visible
from launchers.show.status_table import moment

FOLDER = Path(__file__).parent / "page"


@dataclass(frozen=True)
class RunView:
    """What the template shows of one run, beside the pictures that runs share."""

    facts: RunFacts
    colour: int
    state: str
    verdict: str
    look_at: list[str]
    notes: list[str]
    figures: dict[str, str]
    times: Markup | None
    time_line: Markup | None
    totals: list[Total]
    memory: list[PhaseMemory]
    samples: list[ShownSample]
    made_with: list[tuple[int, Provenance]]
    chosen: dict[str, str]
    all_settings: dict[str, str]


@dataclass(frozen=True)
class Picture:
    """A chart and its drawing."""

    chart: Chart
    svg: Markup
    ends: list[tuple[str, int, str]]  # label, colour, first → last


def report(directories: Sequence[RunDirectory]) -> str:
    """The whole page as text that UTF-8 can hold."""
    runs = read_runs(directories)
    main, rest, constant = charts(runs)
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            runs=[_view(run, colour, 1 / len(runs)) for colour, run in enumerate(runs)],
            pictures=[_picture(chart) for chart in main],
            more_pictures=[_picture(chart) for chart in rest],
            constant=constant,
            differing=differing([run.settings for run in runs]) if len(runs) > 1 else {},
            phases=PHASE_ORDER,
            style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),  # ours, not a stranger's
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=version("ebbtide"),
            made=time.strftime("%Y-%m-%d %H:%M"),
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value if isinstance(value, str) else str(value)),  # Markup stays Markup
    )
    environment.filters |= {"time_words": time_words, "moment": moment, "colour": lambda number: number % NUM_COLOURS}
    return environment


def _view(run: RunFacts, colour: int, share: float) -> RunView:
    notes = list(run.notes)
    samples = choose_samples(run.directory, sorted(run.metrics), share, notes)
    times, bars = step_times(run), time_line(run)
    return RunView(
        facts=run,
        colour=colour,
        state=state_word(run),
        verdict=verdict(run),
        look_at=things_to_look_at(run),
        notes=notes,
        figures=_figures(run),
        times=Markup(draw_step_times(times)) if times else None,
        time_line=Markup(draw_time_line(bars)) if bars else None,
        totals=totals(run),
        memory=memory_by_phase(run.directory),
        samples=samples,
        made_with=made_with(run),
        chosen={key: text(value) for key, value in chosen(run.settings).items()},
        all_settings={key: text(value) for key, value in run.settings.items()},
    )


def _picture(chart: Chart) -> Picture:
    ends = [(one.label, one.colour, _first_and_last(one.values)) for one in chart.series]
    return Picture(chart, Markup(draw(chart)), ends)  # numbers and our own words only: see `drawing`


def _first_and_last(values: Sequence[float]) -> str:
    return f"{values[0]:.3g} → {values[-1]:.3g}" if len(values) > 1 else f"{values[0]:.3g}"


def _figures(run: RunFacts) -> dict[str, str]:
    """Facts for the top of the page."""
    settings, advance = run.settings, run.history.advance
    per_step = [settings.get(f"rollout.{key}") for key in ("rollout_batch_size", "n_samples_per_prompt")]
    tokens = sum(metrics.get("rollout/response_tokens", 0.0) for metrics in run.metrics.values())
    began = run.history.attempts[0].began if run.history.attempts else 0.0
    seconds = [metrics["perf/step_time"] for metrics in run.metrics.values() if "perf/step_time" in metrics]
    found: dict[str, Any] = {
        "model": settings.get("model.name") or settings.get("model.path"),
        "steps": f"{advance.steps_done} of {advance.num_steps}" if advance.num_steps else None,
        "a step": f"{per_step[0]} prompts × {per_step[1]} samples" if None not in per_step else None,
        "time of a step": time_words(sum(seconds) / len(seconds)) if seconds else None,
        "response tokens": f"{tokens:,.0f}".replace(",", " ") if tokens else None,
        "began": moment(began) if began else None,
        "directory": str(run.directory.path),
    }
    return {name: str(value) for name, value in found.items() if value}
