"""The reward `code`: right and wrong programs under the tests that public data sets have, and tricks that earn nothing.

Each case of `TRICKS` and `RIGHT` is one that verifiers in use have got wrong.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from common.mistake import Wrong
from common.waiting import wait_until
from core.config.sections.reward import RewardConfig
from core.reward.code import CodeScorer, same_output
from core.reward.code_answer import code_of
from core.reward.code_tests import Call, Case, Check, Equal, read_tests
from core.reward.label import misfit
from core.reward.pool import RewardPool
from core.reward.sample import RewardInput
from core.sandbox.session import SandboxUnavailable

TIMEOUT_S = 60.0  # beside others


def block(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


def score(response: str, label: Any, timeout_s: float = TIMEOUT_S, **metadata: Any) -> float:
    return CodeScorer(timeout_s)(RewardInput("", response, label=label, metadata=metadata))


ADD = "def add(a, b):\n    return a + b"
SUM = "a, b = map(int, input().split())\nprint(a + b)"
CASES = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
HUMAN_EVAL = (
    "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n"
)
PYTEST = "from solution import add\n\n\ndef test_small():\n    assert add(1, 2) == 3\n"
UNITTEST = """
import unittest
class TestCases(unittest.TestCase):
    def test_one(self):
        self.assertEqual(add(1, 2), 3)
"""
RIGHT = {
    "cases": (block(SUM), CASES, {}),
    "cases as JSON": (block(SUM), json.dumps(CASES), {}),
    "cases one by one": (block(SUM), [{"input": "1 2", "output": "3", "testtype": "stdin"}], {}),
    "lines as lists": (block(SUM), {"inputs": [["1 2"]], "outputs": [["3"]]}, {}),
    "a call": (block(ADD), {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, {}),
    "a call whose output is wrapped": (block(ADD), {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}, {}),
    "a call of a method": (
        block("class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        return a + sum(b)"),
        {"fn_name": "Solution.add", "inputs": [[1, [2, 3]]], "outputs": [6]},
        {},
    ),
    "a call by lines of JSON": (
        block(ADD),
        [{"input": '"a"\n"b"', "output": '"ab"', "testtype": "functional", "metadata": {"func_name": "add"}}],
        {},
    ),
    "a call that returns a tuple": (
        block("def f(): return (1, {2: 0.1 + 0.2})"),
        {"fn_name": "f", "inputs": [[]], "outputs": [[1, {"2": 0.3}]]},
        {},
    ),
    "check of a method": (
        block("class Solution:\n    def add(self, a: int, b: Optional[int]) -> int:\n        return a + b"),
        HUMAN_EVAL,
        {"entry_point": "Solution().add"},
    ),
    "asserts": (block(ADD), ASSERTS, {}),
    "asserts as one text": (block(ADD), "\n".join(ASSERTS), {}),
    "asserts with what they need": (block(ADD), ["assert add(ONE, 2) == 3"], {"test_setup_code": "ONE = 1"}),
    "asserts of approximate equality": (block(ADD), ["import math\nassert math.isclose(add(0.1, 0.2), 0.3)"], {}),
    "check": (block(ADD), HUMAN_EVAL, {"entry_point": "add"}),
    "check that is called": (block(ADD), f"{HUMAN_EVAL}\ncheck(add)", {}),
    "functions of pytest": (block(ADD), PYTEST, {}),
    "classes of unittest": (block(ADD), UNITTEST, {}),
    "a program of its own below": (block(f"{ADD}\nif __name__ == '__main__':\n    print(add(*input()))"), ASSERTS, {}),
    "an end of its own below": (block(f"{ADD}\nimport sys\nsys.exit(0)"), ASSERTS, {}),
    "prints beside": (block(f"print('x' * 100)\n{ADD}"), ASSERTS, {}),
    "a main that is called": (block(f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nmain()"), CASES, {}),
    "a main that is guarded": (
        block(f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nif __name__ == '__main__':\n    main()"),
        CASES,
        {},
    ),
    "reads all at once": (block("import sys\nprint(sum(map(int, sys.stdin.read().split())))"), CASES, {}),
    "reads descriptor 0": (block("print(sum(map(int, open(0).read().split())))"), CASES, {}),
    "reads its input by its path": (block("print(sum(map(int, open('/dev/stdin').read().split())))"), CASES, {}),
    "no line end at the end": (block("print(sum(map(int, input().split())), end='')"), CASES, {}),
    "spaces at the ends of lines": (block("print(sum(map(int, input().split())), end='  \\n\\n')"), CASES, {}),
    "warnings on standard error": (block(f"import sys\nprint('!', file=sys.stderr)\n{SUM}"), CASES, {}),
    "an end with exit code 0": (block(f"{SUM}\nexit()"), CASES, {}),
    "the last block counts": (block("def add(a, b): return a - b") + block(ADD), ASSERTS, {}),
    "an example's output follows": (block(ADD) + "It prints\n```\n3\n```\nor\n```text\n3\n```", ASSERTS, {}),
    "a block without a language": (f"```\n{ADD}\n```", ASSERTS, {}),
    "no block at all": (ADD, ASSERTS, {}),
    "a block within the thinking": (f"<think>{block('x')}</think>{block(ADD)}", ASSERTS, {}),
    "a long answer": (block("print('1 ' * 200_000)"), {"inputs": [""], "outputs": ["1 " * 200_000]}, {}),
    "deep recursion": (
        block("import sys\nsys.setrecursionlimit(10**5)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(20_000))"),
        {"inputs": [""], "outputs": ["20000"]},
        {},
    ),
}
TRICKS = {
    "an end before the tests": (block("import os\nos._exit(0)"), ASSERTS, {}),
    "an end by sys.exit": (block("import sys\nsys.exit(0)"), ASSERTS, {}),
    "an end in the function": (block("import os\ndef add(a, b): os._exit(0)"), ASSERTS, {}),
    "an end by SystemExit in the function": (
        block("def add(a, b): raise SystemExit(0)"),
        HUMAN_EVAL,
        {"entry_point": "add"},
    ),
    "an end at the end of the process": (
        block("import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0"),
        ASSERTS,
        {},
    ),
    "equal to everything": (
        block(
            "class A(int):\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
            "    __hash__ = int.__hash__\ndef add(a, b): return A(9)"
        ),
        ASSERTS,
        {},
    ),
    "equal to everything, of no kind": (
        block("class A:\n    def __eq__(self, o): return True\ndef add(a, b): return A()"),
        {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]},
        {},
    ),
    "claims a class": (
        block("class A:\n    __class__ = int\n    def __index__(self): return 3\ndef add(a, b): return A()"),
        ["assert add(1, 2) == 3"],
        {},
    ),
    "no asserts": (
        block("import builtins\nbuiltins.AssertionError = ZeroDivisionError\ndef add(a, b): return 0"),
        ASSERTS,
        {},
    ),
    "replaces the comparison": (
        block("import operator, math\noperator.eq = math.isclose = lambda *a, **k: True\ndef add(a, b): return 0"),
        ASSERTS,
        {},
    ),
    "writes what a harness might": (
        block(
            'import os\nfor fd in range(1, 12):\n    try: os.write(fd, b\'["passed"]\\n["plain", true]\\n\' * 2)\n'
            "    except OSError: pass\nos._exit(0)"
        ),
        ASSERTS,
        {},
    ),
    "says passed for the tests": (
        block("print('passed')\nprint('2 passed in 0.01s')\nimport os\nos._exit(0)"),
        PYTEST,
        {},
    ),
    "a mock": (block("from unittest.mock import MagicMock\nadd = MagicMock(return_value=None)"), ASSERTS, {}),
    "the unittest is disarmed": (
        block(
            "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\nimport os\ndef add(a, b): os._exit(0)"
        ),
        UNITTEST,
        {},
    ),
    "the right output and an error": (block(f"{SUM}\nraise SystemExit(1)"), CASES, {}),
    "the right output, killed": (
        block(f"{SUM}\nimport os, sys\nsys.stdout.flush()\nos.kill(os.getpid(), 9)"),
        CASES,
        {},
    ),
    "more than the right output": (block(f"{SUM}\nprint(0)"), CASES, {}),
    "all answers at once": (block("print(3)\nprint(7)"), CASES, {}),
    "the first case alone": (block("print(3)"), CASES, {}),
    "an empty output": (block("pass"), {"inputs": ["1"], "outputs": ["1"]}, {}),
    "no program": ("The answer is 3.", ASSERTS, {}),
    "nothing": ("", ASSERTS, {}),
    "a block in the thinking alone": (f"<think>{block(ADD)}</think>I have no answer.", ASSERTS, {}),
    "thinking without an end": (f"<think>{block(ADD)}", ASSERTS, {}),
    "a block that is cut off": (f"```python\n{ADD}", ASSERTS, {}),
    "another language": ("```cpp\nint add(int a, int b) { return a + b; }\n```", ASSERTS, {}),
    "a function of another name": (block(ADD.replace("add", "plus")), ASSERTS, {}),
    "one of two tests": (block("def add(a, b): return 3"), ASSERTS, {}),
    "a number that is close where it has to be whole": (
        block("print(3.0000001)"),
        {"inputs": [""], "outputs": ["3"]},
        {},
    ),
    "a generator for a list": (
        block("def f(): yield 1"),
        {"fn_name": "f", "inputs": [[]], "outputs": [[1]]},
        {},
    ),
    "true for one": (block("def f(): return True"), {"fn_name": "f", "inputs": [[]], "outputs": [1]}, {}),
    "keeps answers for the next case": (
        block("import os\nopen('/tmp/n', 'a').write('x')\nprint({1: 3, 2: 7}[os.path.getsize('/tmp/n')])"),
        CASES,
        {},
    ),
}


@pytest.mark.parametrize(("response", "label", "metadata"), RIGHT.values(), ids=RIGHT)
def test_right_programs(response: str, label: Any, metadata: dict[str, Any]) -> None:
    assert score(response, label, **metadata) == 1.0


@pytest.mark.parametrize(("response", "label", "metadata"), TRICKS.values(), ids=TRICKS)
def test_wrong_programs_and_tricks(response: str, label: Any, metadata: dict[str, Any]) -> None:
    assert score(response, label, **metadata) == 0.0


@pytest.mark.parametrize("label", [ASSERTS, CASES, HUMAN_EVAL + "check(add)"], ids=["asserts", "cases", "check"])
def test_what_takes_too_long_is_wrong(label: Any) -> None:
    assert score(block("while True: pass"), label, timeout_s=1.0) == 0.0


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("", "no test"),
        ([], "no test"),
        (7, "7 as tests"),
        ({"solution": "x"}, "a mapping with solution as tests"),
        ({"inputs": ["1"], "outputs": []}, "a list of 1 as inputs and a list of 0 as outputs"),
        ({"inputs": "1", "outputs": "2"}, "'1' as inputs and '2' as outputs"),
        ("def add(a, b):\n    return a + b", "Python without an assert"),
        ("assert add(1 == 2", "tests that are no Python"),
        (["assert add(1, 2) == 3", None], "nothing as tests"),
        ([{"fn_name": "f", "input": "no JSON", "output": "1"}], "a list of 1 (Expecting value"),
    ],
)
def test_labels_that_test_nothing_are_found_before_a_run(label: Any, found: str) -> None:
    assert (misfit(label, "code") or "").startswith(found)


@pytest.mark.parametrize("label", [one for _, one, _ in RIGHT.values()], ids=RIGHT)
def test_labels_that_fit(label: Any) -> None:
    assert misfit(label, "code") is None


def test_a_check_that_is_not_called_passes_nothing() -> None:
    with pytest.raises(Wrong, match=r"found tests that define check\(candidate\), and no name of the candidate"):
        score(block(ADD), HUMAN_EVAL)


def test_tests_are_read_as_what_can_be_compared_outside() -> None:
    assert read_tests(ASSERTS) == [Equal("add(1, 2)", 3), Equal("add(-1, 1)", 0)]
    assert read_tests("assert 3 == add(1, 2)") == [Equal("add(1, 2)", 3)]
    assert read_tests("assert add(1, 2) > 3") == [Check("assert add(1, 2) > 3")]
    assert read_tests(CASES) == [Case("1 2\n", "3\n"), Case("3 4\n", "7\n")]
    assert read_tests({"inputs": [[1]], "outputs": [2]}, {"fn_name": "f"}) == [Call("f", (1,), 2)]


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("1 2\n", "1  2", True),
        ("1\n2\n", "1 2", False),
        ("1\r\n2\r\n", "1\n2", True),
        ("0.333333333", "0.33333333", True),
        ("0.33", "0.333333", False),
        ("3.0", "3", False),
        ("3", "3.0", True),
        ("1e-12", "0.0", True),
        ("nan", "1.0", False),
        ("YES", "Yes", False),
        ("", "", True),
        ("\n", "", True),
        ("a\n\nb", "a\nb", False),
        ("1_000.0", "1000.0", False),
    ],
)
def test_outputs(found: str, wanted: str, same: bool) -> None:
    assert same_output(found, wanted) == same


def test_blocks() -> None:
    assert code_of("```py\na\n```\n```bash\nls\n```") == "a\n"
    assert code_of("~~~python\na\n~~~") == "a\n"
    assert code_of("  ```python\n  a\n  ```") == "  a\n"
    assert code_of("````python\n```\na\n````") == "```\na\n"
    assert code_of('```python title="x"\na\n```') == "a\n"
    assert code_of("```json\n{}\n```") is None


def test_without_a_sandbox_the_reward_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise SandboxUnavailable("found no way")

    monkeypatch.setattr("core.reward.code.find_way", none)
    with pytest.raises(Wrong, match="found no way"):
        CodeScorer(1.0)


def test_in_scoring_processes() -> None:
    """Right, wrong and hanging ones, as in a run; a process that is killed amid a program leaves nothing of it."""
    mark = f"scored-{os.getpid()}"
    hangs = block(f"import os, time\nname = {mark!r}\nos.execv('/bin/sh', ['sh', '-c', 'sleep 300', name])")
    samples = [RewardInput("", response, label=ASSERTS) for response in (block(ADD), "none", hangs)]
    with RewardPool(RewardConfig(type="code", timeout_s=TIMEOUT_S, num_workers=2)) as pool:
        assert [score.value for score in pool.score(samples[:2])] == [1.0, 0.0]
        pool.submit(samples[2])
        assert wait_until(lambda: bool(named(mark)), TIMEOUT_S)
    assert wait_until(lambda: not named(mark), TIMEOUT_S)


def named(mark: str) -> list[str]:
    """Processes that have a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found
