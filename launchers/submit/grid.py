"""`--grid key=value,value`: the run files of a sweep, as lists of overrides. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

OPENING, CLOSING, QUOTES = "[{(", "]})", "'\""


class GridError(ValueError):
    """A grid that cannot be read, or that is none."""


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Values of each key, in the order given: `["train.lr=1e-6,3e-6"]` -> `{"train.lr": ("1e-6", "3e-6")}`.

    Commas inside brackets or quotes belong to a value: `rollout.stop_token_ids=[1,2],[3]`.
    Raises:
        GridError: no `=`, no value, a value or a key given twice, brackets that do not match.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, separator, values = text.partition("=")
        if not separator or not key.strip():
            raise GridError(f"--grid: found {text!r}; wanted KEY=VALUE,VALUE: write for example train.lr=1e-6,3e-6")
        if key in grid:
            raise GridError(f"--grid {key}: found the key twice; wanted each key once: write all values in one --grid")
        grid[key] = _values(key, values)
    return grid


def points(grid: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination; the last key changes fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def overrides(point: Mapping[str, str]) -> list[str]:
    """A combination as `--set` texts."""
    return [f"{key}={value}" for key, value in point.items()]


def _values(key: str, text: str) -> tuple[str, ...]:
    values = tuple(value.strip() for value in split_values(text, key))
    if not all(values):
        raise GridError(f"--grid {key}: found an empty value in {text!r}; wanted values between commas: fill it in")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise GridError(f"--grid {key}: found {', '.join(twice)} twice; wanted each value once: leave one out")
    return values


def split_values(text: str, key: str = "") -> list[str]:
    """`text` at its commas, but not at those inside brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        else:
            depth += (character in OPENING) - (character in CLOSING)
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if depth or quote:
        missing = quote or "a bracket"
        raise GridError(f"--grid {key}: found {text!r}; wanted every bracket and quote closed: {missing} is open")
    return parts
