"""Lengths of time as people write them, `90s`, `30m`, `2h`, and as they read them, `1 h 05`."""

from __future__ import annotations

import re

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([smh])")


def seconds_of(text: str) -> float | None:
    """Seconds that a text such as `30m` says; None: it is no length of time, or it is none at all."""
    found = FORM.fullmatch(text.strip())
    return (float(found[1]) * UNITS_S[found[2]] or None) if found else None


def in_short(seconds: float) -> str:
    """`45 s`, `12 min`, `1 h 05` or `2 d 3 h`: two figures are enough for what is left of a run."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02}"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
