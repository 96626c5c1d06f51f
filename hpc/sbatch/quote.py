"""Texts on their way into a job script: quoted, or refused where no quoting helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from common.mistake import Wrong, show


def word(text: str | Path, what: str = "value") -> str:
    """`text` as one word of bash.

    Raises:
        Wrong: (a ValueError) it has a line break or a zero byte.
    """
    return shlex.quote(one_line(text, what))


def list_word(items: Iterable[str], what: str) -> str:
    """`items` with commas between them, as one word of bash that is always quoted: bare, it looks like a mistake."""
    text = word(",".join(items), what)
    return text if text.startswith("'") else f"'{text}'"


def one_line(text: str | Path, what: str) -> str:
    """`text` as it is.

    Raises:
        Wrong: (a ValueError) it has a line break or a zero byte.
    """
    text = str(text)
    if any(mark in text for mark in "\n\r\0"):
        raise Wrong(f"a line break in the {what} {show(text)}", "one line", "rename it: a job script cannot spell it")
    return text


def directive(option: str, value: str | int | Path | None = None) -> str:
    """`#SBATCH --option=value`; sbatch reads the value with the quotes of a shell."""
    return f"#SBATCH --{option}" if value is None else f"#SBATCH --{option}={word(str(value), f'value of --{option}')}"


def log_file(folder: Path, name: str) -> str:
    """The value of --output for a file in `folder`; `name` may hold Slurm's patterns, `folder` is taken literally.

    Raises:
        Wrong: (a ValueError) a backslash, which switches the patterns off for the whole path.
    """
    if "\\" in str(folder):
        raise Wrong(f"a backslash in {folder}", "a path that --output can spell", "rename the directory")
    return f"{str(folder).replace('%', '%%')}/{name}"


_PATTERNS = {
    "%j": '"$SLURM_JOB_ID"',
    "%A": '"$SLURM_ARRAY_JOB_ID"',
    "%a": '"$SLURM_ARRAY_TASK_ID"',
    "%r": '"${SLURM_RESTART_COUNT:-0}"',
    "%t": '"$SLURM_PROCID"',
    "%%": "%",
}


def expanded(pattern: str) -> str:
    """A log pattern (%j; %A and %a of an array; %r, %t, %%) as a word of bash that a task expands."""
    parts = re.split(r"(%[jAart%])", one_line(pattern, "log pattern"))
    return "".join(_PATTERNS.get(part) or shlex.quote(part) for part in parts if part)
