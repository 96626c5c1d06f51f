"""What an engine's log says of its end. Tried with SGLang 0.5.16 and 0.5.21."""

from __future__ import annotations

import re
from pathlib import Path

# what each of its processes logs of an exception before it has all others end; theirs tell of its death alone
_MARK = " hit an exception: Traceback (most recent call last):\n"
_NEXT_RECORD = re.compile(r"^\[\d{4}-", re.MULTILINE)
_RAISED_FROM = re.compile(r"\n\n(?:During handling of|The above exception) .*\n\nTraceback .*\n")
_MOST_LETTERS = 300


def first_exception(log: Path) -> str:
    """Type and message, on a line of at most 300 letters, of the exception with which the first process ended.

    Empty: no process has logged one, as where it was killed, or there is no log.
    """
    try:
        _, mark, rest = log.read_text(errors="replace").partition(_MARK)
    except OSError:
        return ""
    record = _NEXT_RECORD.split(rest, 1)[0]
    last = _RAISED_FROM.split(record)[-1]
    line = next((line for line in last.splitlines() if line and not line[0].isspace()), "") if mark else ""
    return line[:_MOST_LETTERS]
