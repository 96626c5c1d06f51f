"""Runs beside each other, as rows of texts: settings and versions where they differ, ends of curves. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from launchers.attempts.provenance import Provenance
from launchers.report.curves import KNOWN, charts
from launchers.report.run_facts import RunFacts
from launchers.report.settings import NO_VALUE, differing

Rows = dict[str, list[str]]
MOST_NAMES = 200  # characters of the names of changed files


def compare(runs: Sequence[RunFacts], made_with: Sequence[Provenance | None]) -> dict[str, Rows]:
    """Heading -> what is compared -> its text in each run; a heading without rows is left out.

    Args:
        made_with: of the newest attempt of each run; None: not noted.
    """
    found: dict[str, Rows] = {
        "settings": differing([run.settings for run in runs]),
        "versions": _versions(made_with),
        "curves, first → last": _curves(runs),
    }
    return {heading: rows for heading, rows in found.items() if rows}


def _versions(made_with: Sequence[Provenance | None]) -> Rows:
    noted = [made for made in made_with if made is not None]
    if len(noted) < len(made_with):
        return {"noted": [NO_VALUE if made is None else made.code_text for made in made_with]} if noted else {}
    columns = [_made_with(made) for made in noted]
    rows = {name: [column.get(name, NO_VALUE) for column in columns] for column in columns for name in column}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _made_with(made: Provenance) -> dict[str, str]:
    found = {"python": made.python, **made.packages, "commit": (made.commit or "")[:12] or made.no_commit}
    found |= {
        "changed files": ", ".join(line[3:] for line in made.dirty)[:MOST_NAMES],
        "machine": made.machine_text,
    }
    return {**found, **{key: fingerprint[:16] for key, _, fingerprint in made.files}}


def _curves(runs: Sequence[RunFacts]) -> Rows:
    """First and last value of what a reader looks for, in the order of the report; the rest is in the report."""
    rows: Rows = {}
    for place, run in enumerate(runs):
        for title, ends in _ends(run).items():
            rows.setdefault(title, [NO_VALUE] * len(runs))[place] = ends
    return rows


def _ends(run: RunFacts) -> dict[str, str]:
    known = [title for _, title, _ in KNOWN]
    found = {}
    for chart in charts([run])[0]:
        for series in chart.series:
            rate = f"{chart.title.removeprefix('Evaluation: ')} of {series.label}"
            found[chart.title if chart.title in known else rate] = f"{series.values[0]:.3g} → {series.values[-1]:.3g}"
    return found
