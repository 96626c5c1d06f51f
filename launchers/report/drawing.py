"""Charts as SVG, by matplotlib: only numbers and words of our own are in them; titles and legends are the page's.

Colours are the page's variables, so that one picture serves a light and a dark page: it is drawn in stand-in colours,
which are replaced in the text.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from launchers.report.curves import Chart, Series
from launchers.report.phases import PHASE_ORDER, Bar, StepTimes

SIZE_IN = (4.2, 2.1)
PLACE = (0.115, 0.13, 0.87, 0.83)  # of the axes: left, bottom, width, height
PLACE_OF_ROWS = (0.16, 0.13, 0.825, 0.83)
NUM_COLOURS = 6
MOST_STACKED_BARS = 60
FEW_POINTS = 30  # up to here each value has a dot
VARIABLES = {f"#0000a{number}": f"var(--c{number})" for number in range(NUM_COLOURS)} | {
    "#0000b0": "var(--axis)",
    "#0000b1": "var(--grid)",
}
COLOURS = [f"#0000a{number}" for number in range(NUM_COLOURS)]
AXIS, GRID = "#0000b0", "#0000b1"
SETTINGS = {"svg.fonttype": "none", "text.parse_math": False, "font.size": 9.0, "path.simplify": True}


def draw(chart: Chart) -> str:
    """The chart as an `<svg>` element."""
    with _axes(chart.title) as (figure, axes):
        for series in chart.series:
            _bars(axes, series) if chart.bars else _line(axes, series)
        if chart.log:
            axes.set_yscale("log")
            axes.minorticks_off()
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        _plain_numbers(axes)
        return _svg(figure)


def draw_step_times(times: Sequence[StepTimes]) -> str:
    """Seconds of each step, by phase, one above the other."""
    with _axes("step times") as (figure, axes):
        steps = [one.step for one in times]
        columns = [[one.seconds.get(phase, 0.0) for one in times] for phase in PHASE_ORDER]
        _stack(axes, steps, columns)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        _plain_numbers(axes)
        return _svg(figure)


def draw_time_line(bars: Sequence[Bar]) -> str:
    """Phases along the clock, one row each."""
    rows = [phase for phase in PHASE_ORDER if any(bar.phase == phase for bar in bars)]
    with _axes("time line", PLACE_OF_ROWS) as (figure, axes):
        for row, phase in enumerate(rows):
            places = [(bar.began, bar.seconds) for bar in bars if bar.phase == phase]
            axes.broken_barh(places, (row - 0.38, 0.76), facecolors=COLOURS[PHASE_ORDER.index(phase)], linewidth=0)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        return _svg(figure)


@contextmanager
def _axes(salt: str, place: tuple[float, float, float, float] = PLACE) -> Iterator[tuple[Figure, Axes]]:
    """Empty axes of our look; `salt` makes the marks by which parts of one picture refer to each other its own."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # fonts that are not there are the reader's, not ours
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": ascii(salt)}):
        figure = Figure(figsize=SIZE_IN)
        axes = figure.add_axes(place)
        axes.patch.set_visible(False)
        axes.margins(x=0.02)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=AXIS, length=0, pad=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(AXIS)
            spine.set_linewidth(0.6)
        yield figure, axes


def _line(axes: Axes, series: Series) -> None:
    colour = COLOURS[series.colour % NUM_COLOURS]
    if series.low:
        axes.fill_between(series.steps, series.low, series.high, color=colour, alpha=0.14, linewidth=0)
    marker = "o" if len(series.steps) <= FEW_POINTS else ""
    axes.plot(series.steps, series.values, color=colour, linewidth=1.4, marker=marker, markersize=3)


def _bars(axes: Axes, series: Series) -> None:
    colour = COLOURS[series.colour % NUM_COLOURS]
    axes.plot(series.steps, series.values, color=colour, linewidth=1.2, marker="o", markersize=3.4)
    if series.low:
        axes.vlines(series.steps, series.low, series.high, color=colour, linewidth=1.2, alpha=0.55)


def _stack(axes: Axes, steps: Sequence[int], columns: Sequence[Sequence[float]]) -> None:
    if len(steps) > MOST_STACKED_BARS:
        axes.stackplot(steps, columns, colors=COLOURS, step="mid", linewidth=0)
        return
    below = [0.0] * len(steps)
    for colour, column in zip(COLOURS, columns, strict=True):
        axes.bar(steps, column, bottom=below, color=colour, width=0.8, linewidth=0)
        below = [a + b for a, b in zip(below, column, strict=True)]


def _plain_numbers(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("e-0", "e-")))


def _svg(figure: Figure) -> str:
    """The element alone: without prolog, date and maker, and with the page's colours."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"^<svg [^>]*viewBox", '<svg aria-hidden="true" focusable="false" viewBox', text, flags=re.DOTALL)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return re.sub(r">\s+<", "><", text).strip()
