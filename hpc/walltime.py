"""Time limits as Slurm spells them, and as whole minutes."""

from __future__ import annotations

import re

from hpc.mistake import Wrong, show

FORMS = "minutes, HH:MM:SS, D-HH or D-HH:MM:SS"
_PATTERNS = (
    r"(?P<minutes>\d+)(?::(?P<seconds>\d+))?",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?",
)


def parse_time(text: str) -> int:
    """Minutes of a Slurm time limit, seconds rounded up: `90`, `90:00`, `01:30:00`, `2-12`, `2-12:30:00`.

    Raises:
        Wrong: (a ValueError) another form, or no time at all.
    """
    match = next((match for form in _PATTERNS if (match := re.fullmatch(form, text.strip()))), None)
    if match is None:
        raise Wrong(show(text), f"a time limit as {FORMS}", "write for example 04:00:00")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    seconds = ((part.get("days", 0) * 24 + part.get("hours", 0)) * 60 + part.get("minutes", 0)) * 60
    minutes = -(-(seconds + part.get("seconds", 0)) // 60)
    if minutes == 0:
        raise Wrong(show(text), "at least a minute", "write for example 04:00:00")
    return minutes


def format_time(minutes: int) -> str:
    """`D-HH:MM:SS`, or `HH:MM:SS` within a day; `parse_time` reads it back."""
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock
