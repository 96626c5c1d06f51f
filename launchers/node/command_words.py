"""Options of a command as its words."""

from __future__ import annotations

from collections.abc import Mapping


def words(options: Mapping[str, object]) -> list[str]:
    """`{"--node": 1, "--ends-at": None}` -> `["--node", "1"]`: each option and its value; None leaves it out."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]
