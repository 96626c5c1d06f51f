"""A mistake in a user's input: where it is, what was found, what was wanted, what to do; and the errors that carry it.

`found` and `wanted` are noun phrases, for they are read as "found …; wanted …"; `remedy` begins with a verb, or asks
"did you mean …?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Mistake:
    """What was found at `key`, what was wanted there, and what to do about it.

    Attributes:
        key: dots between levels; empty: the whole file, or the run.
        line: of the file, from 1; None if the key is not in it.
        override: the `--set` text that the value came from; empty if it came from the file.
    """

    key: str
    line: int | None
    found: str
    wanted: str
    remedy: str
    override: str = ""

    def is_like(self, other: Mistake) -> bool:
        """Whether the same was wanted at the same place; what was found may differ."""
        return (self.key, self.wanted) == (other.key, other.wanted)

    def __str__(self) -> str:
        where = f"--set {self.override}: " if self.override else f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{where}{key}found {self.found}; wanted {self.wanted}: {self.remedy}"


class Wrong(ValueError):
    """A value that is refused by somebody who does not know where it stands, in the three parts of a message."""

    def __init__(self, found: str, wanted: str, remedy: str) -> None:
        self.found, self.wanted, self.remedy = found, wanted, remedy
        super().__init__(found, wanted, remedy)

    def __str__(self) -> str:
        return str(self.at(""))

    def at(self, key: str, line: int | None = None) -> Mistake:
        """The mistake, where it was made."""
        return Mistake(key, line, self.found, self.wanted, self.remedy)


class MistakesError(ValueError):
    """An input with mistakes. `str()` gives all of them, one a line, below a line that counts them."""

    def __init__(self, opening: str, mistakes: Sequence[Mistake]) -> None:
        """Keep the mistakes, and make the text of all of them.

        Args:
        opening: the first line up to the number: `run.yaml has`.
        """
        self.mistakes = list(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([f"{opening} {count}:", *(f"  {mistake}" for mistake in mistakes)]))


def show(value: Any) -> str:
    """A value as a file would spell it, cut to a readable length; containers by kind and size."""
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
