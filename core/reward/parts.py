"""The parts of a reward that is a mapping of numbers: their names, which become those of metrics and of data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
WANTED_NAME = "a name of at most 64 letters, digits, _, - and dots, which begins with none of the last two"
MOST_PARTS = 16


def strange_names(names: Iterable[Any]) -> str | None:
    """What is wrong with the names of parts, as "found; wanted"; None: nothing."""
    listed = list(names)
    if len(listed) > MOST_PARTS:
        return f"{len(listed)} keys; wanted at most {MOST_PARTS}"
    strange = next((one for one in listed if not isinstance(one, str) or not NAME.fullmatch(one)), None)
    return None if strange is None else f"the key {str(strange)[:80]!r}; wanted {WANTED_NAME}"
