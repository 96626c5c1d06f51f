"""A user's own reward is called on first rows before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checks import check_run
from core.checks.trial import reward_trial
from core.config import load_run_file
from tests.support.good_run import write_run

ROWS = '{"prompt": "1 + 1 =", "label": "2", "extra": {"unit": "apples"}}\n' * 2


def run_with(folder: Path, reward: str, *overrides: str) -> Path:
    path = write_run(folder)
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "own.py").write_text(reward)
    return path


FITTING = {
    "a function": ("def score(sample):\n    return len(sample.response_text)\n", [1.0, 0.0]),
    "a coroutine function": ("async def score(sample):\n    return float(sample.label)\n", [2.0, 2.0]),
    "metadata and messages": (
        "def score(sample):\n    return len(sample.metadata['extra']['unit']) + len(sample.messages)\n",
        [7.0, 7.0],
    ),
    "one that only reads what has text": ("def score(sample):\n    return int(sample.response_text)\n", [2.0, None]),
}


@pytest.mark.parametrize(("reward", "values"), FITTING.values(), ids=FITTING)
def test_a_reward_that_scores_is_no_mistake(reward: str, values: list[float | None], tmp_path: Path) -> None:
    config = load_run_file(run_with(tmp_path, reward), ["reward={type: 'own.py:score'}"])
    assert check_run(config) == []
    trial, mistakes = reward_trial(config)
    assert mistakes == []
    assert trial is not None
    assert [one.score.value for one in trial.answers if one.source == "data"] == values
    assert {one.source for one in trial.answers} == {"data", "eval.sets.held_out"}


UNFIT = {
    "a class whose call is a generator": (
        "class score:\n    def __call__(self, sample):\n        yield 1.0\n",
        "the reward is a generator",
    ),
    "an asynchronous generator": (
        "class score:\n    async def __call__(self, sample):\n        yield 1.0\n",
        "the reward is a async_generator",
    ),
    "a list of rewards": ("def score(completions, **kwargs):\n    return [1.0]\n", "the reward is a list ([1.0])"),
    "arguments of another framework": (
        "def score(completions, **kwargs):\n    return [len(one) for one in completions]\n",
        "TypeError: 'RewardInput' object is not iterable (own.py:2 in score), called with the first row of data",
    ),
    "a key that the row has not": (
        "def score(sample):\n    return sample.metadata['ground_truth']\n",
        "KeyError: 'ground_truth' (own.py:2 in score)",
    ),
    "a package that is not installed": ("import no_such_package\ndef score(sample):\n    return 1.0\n", "no_such_pack"),
    "an import that takes longer than the limit": (
        "def score(sample):\n    import time\n    time.sleep(60)\n",
        "no reward within 1 s (reward.timeout_s); the worker was killed, in its first call: what is imported in a call",
    ),
}


@pytest.mark.parametrize(("reward", "says"), UNFIT.values(), ids=UNFIT)
def test_a_reward_that_cannot_score_the_first_row_is_a_mistake(reward: str, says: str, tmp_path: Path) -> None:
    config = load_run_file(run_with(tmp_path, reward), ["reward={type: python, path: 'own.py:score', timeout_s: 1}"])
    assert check_run(config) == []
    _, mistakes = reward_trial(config)
    assert mistakes
    assert mistakes[0].key == "reward.path"
    assert says in mistakes[0].found


def test_an_evaluation_set_with_other_rows_is_named(tmp_path: Path) -> None:
    path = run_with(tmp_path, "def score(sample):\n    return len(sample.metadata['extra'])\n")
    (tmp_path / "other.jsonl").write_text('{"prompt": "1 + 1 =", "label": "2"}\n')
    overrides = ["reward={type: 'own.py:score'}", "eval.sets.held_out.path=other.jsonl"]
    _, mistakes = reward_trial(load_run_file(path, overrides))
    assert [mistake.key for mistake in mistakes] == ["reward.type"]
    assert "KeyError: 'extra' (own.py:2 in score), called with the first row of eval.sets.held_out" in str(mistakes[0])


def test_arguments_that_no_sample_fills_are_known_from_the_text(tmp_path: Path) -> None:
    text = "def score(data_source, solution_str, ground_truth, extra_info=None):\n    return 1.0\n"
    config = load_run_file(run_with(tmp_path, text), ["reward={type: 'own.py:score'}"])
    assert "reward.type" in [mistake.key for mistake in check_run(config)]
