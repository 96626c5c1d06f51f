"""One mistake in a user's input: where, what was found, what was wanted, what to do."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Mistake:
    """A mistake at `key` (dots between levels; empty: the whole file) on the 1-based `line`, if it has one."""

    key: str
    line: int | None
    found: str
    wanted: str
    remedy: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{where}{key}found {self.found}; wanted {self.wanted}: {self.remedy}"


class Wrong(ValueError):
    """A value that a validator refuses, in the three parts of a message."""

    def __init__(self, found: str, wanted: str, remedy: str) -> None:
        self.found, self.wanted, self.remedy = found, wanted, remedy
        super().__init__(f"found {found}; wanted {wanted}: {remedy}")


def show(value: object) -> str:
    """A value as it was written, cut to a readable length; containers by kind and size."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
