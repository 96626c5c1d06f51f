"""The door for rewards: `reward.type` of a run file names a built-in or a function of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.checks import check_run_file
from core.config import RunConfig, load_run_file
from core.config.sections.reward import RewardConfig
from core.doors import REWARD
from core.reward import RewardInput, RewardPool, Score, build_scorer
from tests.support.door_files import example
from tests.support.good_run import write_run

MINE = '''
from ebbtide import RewardInput


def length(sample: RewardInput, most=10):
    return min(len(sample.response_text), most) / most


class Length:
    """Made with the options, then called."""

    def __init__(self, most=10, timeout_s=None):
        self.most, self.timeout_s = most, timeout_s

    def __call__(self, sample):
        return min(len(sample.response_text), self.most) / self.timeout_s


def of_two(sample, label):
    return 1.0


def of_none():
    return 1.0


def any_number(sample, **options):
    return float(options["most"])


async def awaits(sample):
    return 1.0


def generator(sample):
    yield 1.0


def lists(sample):
    def numbers():
        yield 1.0
    return sum(numbers())


def of_another(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0


class NoCall:
    pass
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    write_run(tmp_path)
    return tmp_path


def config(folder: Path, reward: str) -> RunConfig:
    return load_run_file(folder / "run.yaml", [f"reward={reward}"])


def mistakes(folder: Path, reward: str) -> list[str]:
    try:
        check_run_file(folder / "run.yaml", [f"reward={reward}"])
    except ValueError as error:
        return [line.partition(f"{reward}: ")[2].replace(str(folder), "DIR") for line in str(error).splitlines()[1:]]
    return []


WANTED = "a function (sample) -> float, or a class whose objects are called so"
CASES: dict[str, tuple[str, list[str]]] = {
    "unknown": (
        "{type: regexp}",
        [
            "reward.type: found 'regexp'; wanted one of math, reasoning_gym, exact, last_number, regex, deepscaler, "
            "dapo, f1, choice, code, random, environment, http, python, or module.py:function or "
            "package.module:function: did you mean regex?"
        ],
    ),
    "no such file": (
        "{type: yours.py:f}",
        ["reward.type: found DIR/yours.py, which does not exist; wanted a Python file: correct the path"],
    ),
    "no such function": (
        "{type: mine.py:any_numbers}",
        [
            "reward.type: found no any_numbers in DIR/mine.py; wanted a function defined or imported there: "
            "did you mean any_number?"
        ],
    ),
    "no such option": (
        "{type: mine.py:length, options: {least: 1}}",
        ["reward.options: found the option least; wanted an option of DIR/mine.py:length: most: remove or correct it"],
    ),
    "two parameters": (
        "{type: mine.py:of_two}",
        [
            "reward.options: found no label; wanted all that DIR/mine.py:of_two needs: add label",
            f"reward.type: found of_two of DIR/mine.py with (sample, label); wanted {WANTED}: correct its parameters",
        ],
    ),
    "no parameter": (
        "{type: mine.py:of_none}",
        [f"reward.type: found of_none of DIR/mine.py with (); wanted {WANTED}: correct its parameters"],
    ),
    "no parameter, older way": (
        "{type: python, path: mine.py:of_none}",
        [f"reward.path: found of_none of DIR/mine.py with (); wanted {WANTED}: correct its parameters"],
    ),
    "not to be called": (
        "{type: mine.py:NoCall}",
        [f"reward.type: found the class NoCall of DIR/mine.py without __call__; wanted {WANTED}: define __call__"],
    ),
    "options of a built-in": (
        "{type: exact, options: {most: 1}}",
        ["reward.options: found the option most; wanted no options, as exact takes none: remove or correct it"],
    ),
    "a path beside a function": (
        "{type: mine.py:length, path: mine.py:length}",
        [
            "reward.path: found path with reward.type DIR/mine.py:length; wanted path only with python: "
            "remove it, or set reward.type to python"
        ],
    ),
    "a generator": (
        "{type: mine.py:generator}",
        [
            "reward.type: found a generator: generator of DIR/mine.py has a yield; wanted a function that returns its "
            "reward: write return in place of yield"
        ],
    ),
    "other frameworks' arguments": (
        "{type: mine.py:of_another}",
        [
            "reward.options: found no ground_truth, solution_str; wanted all that DIR/mine.py:of_another needs: "
            "add ground_truth, solution_str",
            "reward.type: found of_another of DIR/mine.py with (data_source, solution_str, ground_truth, extra_info); "
            f"wanted {WANTED}: correct its parameters",
        ],
    ),
    "a coroutine function": ("{type: mine.py:awaits}", []),
    "a yield in a function inside": ("{type: mine.py:lists}", []),
    "longer than the limit": (
        "{overlong_buffer_tokens: 2000000}",
        [
            "reward.overlong_buffer_tokens: found 2000000 tokens; wanted at most rollout.max_response_tokens, 32: "
            "lower it: a fifth of the limit is usual"
        ],
    ),
    "function": ("{type: mine.py:length, options: {most: 5}}", []),
    "class": ("{type: mine.py:Length, options: {most: 5}}", []),
    "older way": ("{type: python, path: mine.py:length, options: {most: 5}}", []),
    "any options": ("{type: mine.py:any_number, options: {most: 5}}", []),
}


@pytest.mark.parametrize(("reward", "said"), CASES.values(), ids=CASES)
def test_what_is_wrong_with_a_reward_is_said_before_the_run(reward: str, said: list[str], folder: Path) -> None:
    assert mistakes(folder, reward) == said


@pytest.mark.parametrize(
    ("reward", "value"),
    [
        ("{type: mine.py:length, options: {most: 5}}", 0.6),
        ("{type: python, path: mine.py:length, options: {most: 5}}", 0.6),
        ("{type: mine.py:Length, timeout_s: 6.0}", 0.5),
        ("{type: mine.py:any_number, options: {most: 7}}", 7.0),
        ("{type: exact}", 1.0),
        ("{type: regex, pattern: '(y.)'}", 0.0),
        ("{type: regex, pattern: '(y..)'}", 1.0),
    ],
    ids=["function", "older way", "class", "any options", "exact", "regex too short", "regex"],
)
def test_built_ins_and_ones_own_go_the_same_way(reward: str, value: float, folder: Path) -> None:
    sample = RewardInput("say yes", "yes", label="yes")
    section = config(folder, reward).reward
    assert build_scorer(section)(sample) == value
    with RewardPool(section) as pool:
        assert pool.submit(sample).result(60) == Score(value)


def test_the_older_way_gets_options_and_nothing_else(folder: Path) -> None:
    scorer: Any = build_scorer(config(folder, "{type: python, path: mine.py:Length, timeout_s: 6.0}").reward)
    assert scorer.timeout_s is None


@pytest.mark.parametrize("name", [one for one in REWARD.builtins if one != "environment"])  # which needs one
def test_a_built_in_is_checked_like_a_users_own(name: str, folder: Path) -> None:
    needs = {"regex": ", pattern: '(a)'", "http": ", options: {url: 'http://judge/'}"}
    said = mistakes(folder, f"{{type: {name}{needs.get(name, '')}}}")
    assert not [line for line in said if line.startswith("reward.")]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (RewardConfig(type="exakt"), "found reward.type 'exakt'; wanted one of math"),
        (RewardConfig(type="python", path="x"), "found reward.path 'x'; wanted module.py:function"),
    ],
    ids=["name", "path"],
)
def test_a_worker_says_what_it_cannot_build(section: RewardConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_scorer(section)


def test_the_pages_example(folder: Path) -> None:
    (folder / "brief.py").write_text(example("Reward"))
    reward = "{type: brief.py:Brief, options: {longest: 3}}"
    assert mistakes(folder, reward) == []
    scorer = build_scorer(config(folder, reward).reward)
    assert scorer(RewardInput("2 + 2 =", " = 4", label="4")) == pytest.approx(0.99)
