"""Numbers as a person says them. Pure."""

from __future__ import annotations


def time_words(seconds: float) -> str:
    """`7.3 s`, `4 min 33 s`, `5 h 12 min`, `3 d 4 h`."""
    if seconds < 99.5:
        return f"{max(0.0, seconds):.3g} s"
    for unit, size, smaller, smaller_size in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86400, "h", 3600)):
        if seconds < size * 100 or unit == "d":
            whole, rest = divmod(round(seconds / smaller_size), size // smaller_size)
            return f"{whole} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("the largest unit takes everything")
