"""One mistake in a run file, as a value and as a line of text, and the error that carries all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """What was found at `key`, what was wanted there, and what to do about it.

    `line` is the 1-based line of the run file; None if the key is not in the file. `override` is the `--set` text that
    the value came from; the empty string if it came from the file.
    """

    key: str
    line: int | None
    found: str
    wanted: str
    remedy: str
    override: str = ""

    def __str__(self) -> str:
        where = f"--set {self.override}: " if self.override else f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{where}{key}found {self.found}; wanted {self.wanted}: {self.remedy}"


class RunFileError(ValueError):
    """A run file with mistakes. `str()` gives the file's name and every problem, one a line."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = list(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{path} has {count}:", *(f"  {problem}" for problem in problems)]))


def show_value(value: Any) -> str:
    """A value as a run file would spell it, cut to a readable length; containers by kind and size."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
