"""Programs in responses, judged by the tests of the row. They run in a sandbox, whatever they do.

Right is what passes all tests; all else is wrong: no program, one that raises, is too slow, needs too much, or ends
before its tests have ended. What is printed or returned is compared outside of the program, by what it says and not by
what it says it equals. Left out: other languages, packages beside the standard library, judges of a task's own.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from core.reward.code_answer import code_of
from core.reward.code_tests import NAMES, Call, Case, Check, Equal, Test, read_tests, setup_of
from core.reward.sample import OWN_SHARE_OF_TIME, RewardInput
from core.sandbox.sandbox import Sandbox, find_way
from core.sandbox.session import SandboxUnavailable

MORE_OUTPUT_BYTES = 1 << 16  # than is right
HARNESS = Path(__file__).with_name("code_harness.py").read_text(encoding="utf-8")
MOST_ANSWER_BYTES = 1 << 22
CLOSE, SMALL = 1e-6, 1e-9  # numbers that are not whole: by share of the larger; near 0


class CodeScorer:
    """1.0 if the program in the response passes all tests of its label, else 0.0."""

    def __init__(self, timeout_s: float) -> None:
        """See that there is a sandbox.

        Args:
            timeout_s: of a sample, for all its tests together.
        Raises:
            Wrong: there is none on this machine.
        """
        self._timeout_s = timeout_s * OWN_SHARE_OF_TIME  # what had no time is wrong, not failed
        try:
            find_way()
        except SandboxUnavailable as error:
            raise Wrong(
                str(error), "a machine with a sandbox for reward.type code", "see docs/rewards-and-data.md"
            ) from error

    def __call__(self, sample: RewardInput) -> float:
        tests = read_tests(sample.label, sample.metadata)
        _refuse_uncalled(tests)
        code = code_of(sample.response_text)
        if code is None:
            return 0.0
        begun = time.monotonic()
        cases = [test for test in tests if isinstance(test, Case)]
        others = [test for test in tests if not isinstance(test, Case)]
        if not self._prints(code, cases, self._timeout_s):
            return 0.0
        left_s = max(self._timeout_s - (time.monotonic() - begun), 0.0)
        return float(self._answers(code, others, setup_of(sample.metadata), left_s))

    def _prints(self, code: str, cases: Sequence[Case], left_s: float) -> bool:
        if not cases:
            return True
        most = max(len(case.stdout.encode("utf-8", "replace")) for case in cases) + MORE_OUTPUT_BYTES
        sandbox = Sandbox(timeout_s=left_s, output_bytes=most)
        with closing(sandbox.run_all(code, [case.stdin for case in cases], left_s)) as outcomes:
            pairs = zip(outcomes, cases, strict=False)  # the first that is wrong is the last that is run
            return all(ran.ok and same_output(ran.stdout, case.stdout) for ran, case in pairs)

    def _answers(self, code: str, tests: Sequence[Test], setup: str, left_s: float) -> bool:
        if not tests:
            return True
        word = secrets.token_hex(16)
        told = {"code": code, "setup": setup, "tests": [_told(test, word) for test in tests]}
        ran = Sandbox(timeout_s=left_s, output_bytes=MOST_ANSWER_BYTES).run(HARNESS, json.dumps(told) + "\n")
        lines = ran.stdout.splitlines()
        if not ran.ok or len(lines) != len(tests):
            return False
        return all(_passed(test, line, word) for test, line in zip(tests, lines, strict=True))


def _refuse_uncalled(tests: Sequence[Test]) -> None:
    if any(isinstance(test, Check) and test.needs_name and not test.name for test in tests):
        found = "tests that define check(candidate), and no name of the candidate"
        raise Wrong(found, f"one of the keys {', '.join(NAMES)} in the row", "add it to the rows")


def _told(test: Test, word: str) -> list[Any]:
    """A test as the harness knows it: without what is right."""
    match test:
        case Call(name, arguments):
            return ["call", name, arguments]
        case Equal(expression):
            return ["equal", expression]
        case Check(code, name, needs_name):
            return ["check", code, name if needs_name else "", word]
        case _:
            raise TypeError(test)


def _passed(test: Test, line: str, word: str) -> bool:
    try:
        answer = json.loads(line)
        if isinstance(test, Check):
            return bool(answer == ["passed", word])
        found = value_of(answer)
    except (ValueError, TypeError, LookupError, RecursionError):  # the program has written it
        return False
    if isinstance(test, Equal):
        return bool(found == test.value)
    assert isinstance(test, Call)
    wanted = test.returns
    alone = isinstance(wanted, list) and len(wanted) == 1  # as some sets wrap each
    return same_return(found, wanted) or (alone and same_return(found, wanted[0]))


def value_of(answer: Any) -> Any:
    """The value that the harness has written; of a kind that it does not know: what is equal to nothing."""
    kind, *rest = answer
    content: Any = rest[0] if rest else None
    match kind:
        case "plain":
            return content
        case "int":
            return int(content, 16)
        case "float":
            return float(content)
        case "complex":
            return complex(*map(float, content))
        case "bytes":
            return bytes.fromhex(content)
        case "list" | "tuple" | "set" | "frozenset":
            makers: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
            return makers[kind](map(value_of, content))
        case "dict":
            return {value_of(key): value_of(one) for key, one in content}
    return object()


def same_return(found: Any, wanted: Any) -> bool:
    """Whether a value is what a data set has as JSON: tuples are lists there, keys are text, fractions are close."""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return found is wanted
    if isinstance(wanted, float) and isinstance(found, int | float):
        return close(found, wanted)
    if isinstance(wanted, list | tuple):
        same_length = isinstance(found, list | tuple) and len(found) == len(wanted)
        return same_length and all(map(same_return, found, wanted))
    if isinstance(wanted, dict) and isinstance(found, dict):
        named = {str(key): one for key, one in found.items()}
        return named.keys() == {str(key) for key in wanted} and all(
            same_return(named[str(key)], one) for key, one in wanted.items()
        )
    return bool(found == wanted)


def same_output(found: str, wanted: str) -> bool:
    """Whether two outputs have the same words in the same lines: numbers by value, space at ends of lines ignored."""
    lines, others = (text.strip("\n\r \t").splitlines() for text in (found, wanted))
    if len(lines) != len(others):
        return False
    pairs = zip(lines, others, strict=True)
    return all(one.rstrip() == other.rstrip() or _same_words(one.split(), other.split()) for one, other in pairs)


def _same_words(words: list[str], others: list[str]) -> bool:
    return len(words) == len(others) and all(map(_same_word, words, others))


def _same_word(word: str, wanted: str) -> bool:
    """Whole numbers have to be as they are; where a fraction is wanted, a number that is close will do."""
    if word == wanted:
        return True
    try:
        return any(sign in wanted for sign in ".eE") and "_" not in word and close(float(word), float(wanted))
    except ValueError:
        return False


def close(found: float, wanted: float) -> bool:
    """Whether two numbers are equal up to a millionth of the larger one."""
    try:
        return math.isclose(found, wanted, rel_tol=CLOSE, abs_tol=SMALL)
    except OverflowError:
        return False
