"""Flags of a command line, as argparse would take them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from launchers.moving_in.shell import Gaps

SECRET = re.compile(r"wandb_key|api_key|token$|password|secret")
FLAG = re.compile(r"--[A-Za-z][\w-]*")


@dataclass(frozen=True)
class Flag:
    """A flag with its words; where one is given twice, the last counts.

    Attributes:
        name: dashes as underscores, without those in front.
        words: what follows it.
    """

    name: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words as one text."""
        return " ".join(self.words)

    def __str__(self) -> str:
        words = ("…",) if self.words and SECRET.search(self.name) else self.words
        return " ".join((f"--{self.name.replace('_', '-')}", *words))


class Flags:
    """The flags of a launch, each taken by the rule that translates it.

    Attributes:
        given: by name.
        stray: words that belong to no flag.
    """

    def __init__(self, words: Iterable[str], gaps: Gaps) -> None:
        self.given: dict[str, Flag] = {}
        self.stray: list[str] = []
        self._left: set[str] = set()
        for name, found in _split(words, self.stray):
            self.given[name] = Flag(name, tuple(gaps.readable(word) for word in found))
            self._left.add(name)

    def put(self, name: str, value: Any) -> None:
        """Set a flag to a value of a file, over what the command line says; false and null: it is not there."""
        self._left.discard(name)
        self.given.pop(name, None)
        if value is not None and value is not False:
            words = () if value is True else map(str, value if isinstance(value, list) else [value])
            self.given[name] = Flag(name, tuple(words))
            self._left.add(name)

    def take(self, name: str) -> Flag | None:
        """The flag, which is dealt with by this."""
        self._left.discard(name)
        return self.given.get(name)

    def has(self, name: str) -> bool:
        """Whether the flag is there; it is dealt with by this."""
        return self.take(name) is not None

    def look(self, name: str) -> Flag | None:
        """The flag; it is left to others."""
        return self.given.get(name)

    def said(self, name: str) -> str:
        """The words of a flag, which is left to others; empty where it is not there."""
        flag = self.given.get(name)
        return "" if flag is None else flag.text

    def left_to(self, name: str) -> bool:
        """Whether the flag is there, and nobody has taken it."""
        return name in self._left

    def left(self) -> list[Flag]:
        """What nobody has taken, in order."""
        return [flag for name, flag in self.given.items() if name in self._left]

    def text(self, name: str, default: str = "") -> str:
        """The words of a flag, which is dealt with by this."""
        flag = self.take(name)
        return default if flag is None else flag.text

    def number(self, name: str, default: float) -> float:
        """The number of a flag; the default where it has none."""
        return number(self.text(name), default)

    def whole(self, name: str, default: int) -> int:
        """The whole number of a flag; the default where it has none."""
        return whole(self.text(name), default)


def number(text: str, default: float) -> float:
    """The number that a text spells, if it spells one."""
    try:
        value = float(text)
    except ValueError:
        return default
    return value if abs(value) < 1e15 else default


def whole(text: str, default: int) -> int:
    """The whole number that a text spells, if it spells one."""
    return int(text) if re.fullmatch(r"\s*[-+]?\d{1,15}\s*", text) else default


def _split(words: Iterable[str], stray: list[str]) -> Iterator[tuple[str, list[str]]]:
    name = ""
    found: list[str] = []
    for word in words:
        head, equals, value = word.partition("=")
        if FLAG.fullmatch(head):
            if name:
                yield name, found
            name, found = head[2:].replace("-", "_"), [value] if equals else []
        elif name:
            found.append(word)
        else:
            stray.append(word)
    if name:
        yield name, found
