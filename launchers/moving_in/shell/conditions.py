"""Tests of a script, `[ … ]` and `[[ … ]]`: True, False, or None where only a run would tell."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Sequence

from launchers.moving_in.shell.gaps import Gaps

NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-gt": operator.gt,
    "-ge": operator.ge,
    "-lt": operator.lt,
    "-le": operator.le,
}


def test(words: Sequence[str], gaps: Gaps) -> bool | None:
    """The result of a test, without its brackets. Files are not looked at."""
    for joint, settles in (("||", True), ("-o", True), ("&&", False), ("-a", False)):
        if joint in words[1:]:
            at = words.index(joint, 1)
            results = [test(words[:at], gaps), test(words[at + 1 :], gaps)]
            return settles if settles in results else None if None in results else not settles
    if words[:1] == ["("] and words[-1:] == [")"]:
        return test(words[1:-1], gaps)
    if words[:1] == ["!"]:
        found = test(words[1:], gaps)
        return None if found is None else not found
    known = [gaps.as_set(word) for word in words]
    match known:
        case []:
            return False
        case [one]:
            return None if one is None else one != ""
        case ["-z", one]:
            return None if one is None else one == ""
        case ["-n", one]:
            return None if one is None else one != ""
        case ["-v", _] | [_, None] | [None, _, _] | [_, _, None]:
            return None
        case [str() as left, str() as sign, str() as right]:
            return _compare(left, sign, right)
    return None


def _compare(left: str, sign: str, right: str) -> bool | None:
    if sign in ("=", "=="):
        return fnmatch.fnmatchcase(left, right)
    if sign == "!=":
        return not fnmatch.fnmatchcase(left, right)
    if sign in ("<", ">"):
        return left < right if sign == "<" else left > right
    if sign == "=~":
        return _matches(left, right)
    if sign in NUMBERS:
        numbers = [int(one) for one in (left, right) if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", one)]
        return NUMBERS[sign](*numbers) if len(numbers) == 2 else False
    return None


def _matches(text: str, pattern: str) -> bool | None:
    """A regular expression, if it is a plain one: others may take for ever."""
    if not re.fullmatch(r"[\w^$\[\]|+ .:/=,-]{1,40}", pattern) or len(text) > 1000:
        return None
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return None
