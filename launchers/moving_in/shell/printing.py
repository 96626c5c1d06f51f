"""Commands whose output is known without running them: echo, printf, dirname, seq, …"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from launchers.moving_in.shell.state import Shell

MOST_NUMBERS = 10_000


def printed(shell: Shell, words: Sequence[str], given: str | None) -> str | None:
    """What a command prints; None: only running it would tell.

    Args:
        given: the here-document that it reads; None: there is none.
    """
    name, rest = words[0], [word for word in words[1:] if word != "--"]
    paths = [word for word in rest if not word.startswith("-")]
    match name:
        case "echo":
            newline = "" if rest[:1] == ["-n"] else "\n"
            return " ".join(rest[1:] if rest[:1] in (["-n"], ["-e"]) else rest) + newline
        case "printf" if rest and rest[0] != "-v":
            return formatted(rest[0], rest[1:])
        case "cat" if not paths:
            return given
        case "cat" if len(paths) == 1:
            return shell.shared.files.get(paths[0])
        case "pwd":
            return shell.folder + "\n"
        case "dirname" if len(paths) == 1:
            return (posixpath.dirname(paths[0].rstrip("/")) or ("/" if paths[0].startswith("/") else ".")) + "\n"
        case "basename" if 1 <= len(paths) <= 2:
            return posixpath.basename(paths[0].rstrip("/")).removesuffix(paths[1] if paths[1:] else "") + "\n"
        case "realpath" | "readlink" if len(paths) == 1:
            return joined(shell.folder, paths[0]) + "\n"
        case "seq" if 1 <= len(rest) <= 3 and all(re.fullmatch(r"-?\d{1,9}", one) for one in rest):
            return _sequence([int(one) for one in rest])
        case "true" | ":" | "test" | "cd" | "set" | "unset" | "shift" | "wait":
            return ""
    return None


def formatted(template: str, arguments: Sequence[str]) -> str:
    """printf's text; a template that has not used up its arguments is used again."""
    left = list(arguments)
    text = ""
    while True:
        before = len(left)
        pattern = r"%(%|-?\d*(?:\.\d+)?[sdifq])"
        text += re.sub(pattern, lambda one: "%" if one[1] == "%" else left.pop(0) if left else "", template)
        if not left or len(left) == before:
            return text.replace("\\n", "\n").replace("\\t", "\t")


def joined(folder: str, path: str) -> str:
    """A path from a folder on, without `..`."""
    return posixpath.normpath(posixpath.join(folder, path))


def _sequence(bounds: list[int]) -> str | None:
    first, step, last = {1: (1, 1, bounds[-1]), 2: (bounds[0], 1, bounds[-1])}.get(
        len(bounds), (*bounds[:2], bounds[-1])
    )
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    return None if len(numbers) > MOST_NUMBERS else "".join(f"{number}\n" for number in numbers)
