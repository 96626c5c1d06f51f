"""Lengths of time as people write them: `90s`, `30m`, `2h`."""

from __future__ import annotations

import re

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([smh])")


def seconds_of(text: str) -> float | None:
    """Seconds that a text such as `30m` says; None: it is no length of time, or it is none at all."""
    found = FORM.fullmatch(text.strip())
    return (float(found[1]) * UNITS_S[found[2]] or None) if found else None
