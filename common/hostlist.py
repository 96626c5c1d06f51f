"""Slurm's short form of host lists: `n[1-3,07],login` is n1, n2, n3, n07, login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from common.mistake import Wrong, show

_ENTRY = re.compile(r"[A-Za-z0-9_.-]+(\[[0-9,-]+\][A-Za-z0-9_.-]*)*")


class HostlistError(ValueError):
    """A text is no host list."""


def expand(text: str) -> tuple[str, ...]:
    """The hosts of a list, in its order.

    Raises:
        HostlistError: a bracket is missing, or a range is none.
    """
    return tuple(host for entry in _split(text) for host in _hosts(entry, text))


def check_nodes(text: str) -> None:
    """Refuse a text that is not one entry of a host list: `n017`, `gpu[3-5]-ib` or `rack[1-2]n[01-16]`.

    Raises:
        Wrong: (a ValueError) several entries, another letter, or a range that is none.
    """
    try:
        if not _ENTRY.fullmatch(text):
            raise HostlistError(text)
        for inside in re.findall(r"\[(.*?)\]", text):
            for part in inside.split(","):
                _range(part, text)
    except HostlistError:
        wanted = "the name of a node, or a range such as gpu[3-5]"
        raise Wrong(show(text), wanted, "write one entry per node or range, as `sinfo -N` shows it") from None


def _split(text: str) -> list[str]:
    """The entries between the commas that are outside brackets."""
    entries, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth not in (0, 1):
            raise HostlistError(f"host list {text!r}: brackets do not match")
        if letter == "," and depth == 0:
            entries.append("")
        else:
            entries[-1] += letter
    if depth:
        raise HostlistError(f"host list {text!r}: brackets do not match")
    return [entry for entry in (entry.strip() for entry in entries) if entry]


def _hosts(entry: str, text: str) -> Iterator[str]:
    """One entry, such as rack[1-2]n[01-16]: later brackets count faster."""
    choices: list[list[str]] = []
    for piece in entry.replace("]", "[").split("["):
        inside = len(choices) % 2 == 1
        choices.append([number for part in piece.split(",") for number in _range(part, text)] if inside else [piece])
    for combination in product(*choices):
        yield "".join(combination)


def _range(part: str, text: str) -> list[str]:
    """`08-10` is 08, 09, 10: numbers keep the width of the first."""
    first, dash, last = part.partition("-")
    if not dash and first.isdigit():
        return [first]
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise HostlistError(f"host list {text!r}: {part!r} is no number and no range of numbers")
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
