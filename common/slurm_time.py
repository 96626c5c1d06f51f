"""Time limits as Slurm reads them: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

Slurm limits no part: `1:123:00` is an hour and 123 minutes, `90:90` is 91 and a half minutes. It takes no blanks, and
rounds seconds up to a minute.
Left out: `UNLIMITED`, `-1` and `0`, which ask for no limit at all, and `1-` for one day.
"""

from __future__ import annotations

import re

from common.mistake import Wrong, show

FORMS = "MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
_PATTERNS = (
    r"(?P<minutes>[0-9]+)(?::(?P<seconds>[0-9]+))?",
    r"(?P<hours>[0-9]+):(?P<minutes>[0-9]+):(?P<seconds>[0-9]+)",
    r"(?P<days>[0-9]+)-(?P<hours>[0-9]+)(?::(?P<minutes>[0-9]+)(?::(?P<seconds>[0-9]+))?)?",
)


def time_limit_s(text: str) -> int:
    """Seconds of a time limit.

    Raises:
        Wrong: (a ValueError) another form, or no time at all.
    """
    match = next((match for form in _PATTERNS if (match := re.fullmatch(form, text))), None)
    if match is None:
        raise Wrong(show(text), f"a time limit as {FORMS}", 'write for example "04:00:00" for four hours')
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    hours = part.get("days", 0) * 24 + part.get("hours", 0)
    seconds = (hours * 60 + part.get("minutes", 0)) * 60 + part.get("seconds", 0)
    if seconds == 0:
        raise Wrong(show(text), "a time limit above zero", 'write for example "04:00:00" for four hours')
    return seconds


def time_limit_minutes(text: str) -> int:
    """Minutes of a time limit, seconds rounded up.

    Raises:
        Wrong: as `time_limit_s`.
    """
    return -(-time_limit_s(text) // 60)


def format_time(minutes: int) -> str:
    """`D-HH:MM:SS`, or `HH:MM:SS` within a day; `time_limit_minutes` reads it back."""
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock
