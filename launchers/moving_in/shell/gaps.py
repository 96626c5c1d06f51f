"""What a script does not say by itself: variables of its caller, and what commands would print.

A gap travels through texts as a mark of private characters, so that whatever it ends up in is known to have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPEN, CLOSE = "\ue000", "\ue001"
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")


@dataclass(frozen=True)
class Gap:
    """Something that is not known.

    Attributes:
        variable: a variable that the script does not set; empty: what a command prints.
        text: how the script spells it.
    """

    text: str
    variable: str = ""


class Gaps:
    """The gaps of one script, each with its mark."""

    def __init__(self) -> None:
        self.all: list[Gap] = []

    def mark(self, gap: Gap) -> str:
        """The mark of a gap, the same for the same one."""
        if gap not in self.all:
            self.all.append(gap)
        return f"{OPEN}{self.all.index(gap)}{CLOSE}"

    def within(self, text: str) -> list[Gap]:
        """The gaps of a text, in order."""
        return [self.all[int(found)] for found in MARK.findall(text)]

    def readable(self, text: str) -> str:
        """The text as the script spells it: `$BASE_DIR/model`."""
        return MARK.sub(lambda found: self.all[int(found[1])].text, text)

    def as_set(self, text: str) -> str | None:
        """The text as bash would have it, where unset variables are empty; None: a command's output decides."""
        if any(not gap.variable for gap in self.within(text)):
            return None
        return MARK.sub("", text)


def without_marks(text: str) -> str:
    """A text of somebody else's, which has no marks of ours."""
    return text.replace(OPEN, "").replace(CLOSE, "")
