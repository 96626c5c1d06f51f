"""The scorers on right, wrong and unusable answers; each in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.sections.data import DataConfig
from core.config.sections.reward import RewardConfig
from core.data import load_rows
from core.reward import RewardInput, build_scorer
from core.reward.overlong import overlong_penalty
from core.reward.scorers import Scorer

PAIRS = Path(__file__).parent / "math_pairs.jsonl"


def score(config: RewardConfig, response: str, label: Any) -> float:
    return build_scorer(config)(RewardInput("", response, label))


@pytest.mark.parametrize(
    ("response", "label", "wanted"),
    [
        (" 7\n", "7", 1.0),
        ("7", 7, 1.0),
        ("7.", "7", 0.0),
        ("", "7", 0.0),
        ("1e-05", 0.00001, 1.0),
        ("72", 72.0, 1.0),
        ("True", True, 1.0),
    ],
)
def test_exact(response: str, label: Any, wanted: float) -> None:
    assert score(RewardConfig(type="exact"), response, label) == wanted


@pytest.mark.parametrize(
    ("response", "label", "wanted"),
    [
        ("The answer is 7", "7", 1.0),
        ("\\boxed{7}", "7", 1.0),
        ("\\boxed{7}", "\\boxed{7}", 1.0),
        ("so $x = 7$", 7, 1.0),
        ("$\\frac{1}{2}$", "1/2", 1.0),
        ("0.5", "\\frac{1}{2}", 1.0),
        ("$1+x$", "x+1", 1.0),
        ("$2x+2$", "$2(x+1)$", 1.0),
        ("it is 1,234", "1234", 1.0),
        ("\\boxed{8}", "7", 0.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
        ("\\boxed{\\frac{", "7", 0.0),
    ],
)
def test_math(response: str, label: Any, wanted: float) -> None:
    assert score(RewardConfig(type="math"), response, label) == wanted


def test_the_answer_of_a_person_to_pairs_that_verifiers_got_wrong(math: Scorer) -> None:
    wrong = [
        pair
        for pair in map(json.loads, PAIRS.read_text().splitlines())
        if math(RewardInput("", pair["response"], pair["label"])) != pair["reward"]
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def math() -> Scorer:
    return build_scorer(RewardConfig(type="math", timeout_s=3))


@pytest.mark.parametrize("label", ["", " ", None, {"a": 1}, float("nan"), [], ["7", ""], True])
def test_labels_that_nothing_can_be_compared_with(label: Any, math: Scorer) -> None:
    with pytest.raises(ValueError, match=r"found the label .*; wanted text with an expression, a number, or a list"):
        math(RewardInput("", "7", label))


THOUGHT = "<think>hm</think> "


@pytest.mark.parametrize(
    ("kind", "response", "label", "wanted"),
    [
        ("deepscaler", THOUGHT + "\\boxed{1/2}", "0.5", 1.0),
        ("deepscaler", "\\boxed{1/2}", "0.5", 0.0),
        ("deepscaler", "<think>\\boxed{7}</think> it is 7", "7", 0.0),
        ("dapo", "So.\nAnswer: 42", 42, 1.0),
        ("dapo", "Answer: 41\nAnswer: $\\boxed{42}$", "42", 1.0),
        ("dapo", "It is 42", "42", -1.0),
        ("dapo", "Answer: 42" + "." * 300, "42", -1.0),
        ("choice", "\\boxed{\\textbf{(B) } 12}", "B", 1.0),
        ("choice", "The answer is (C).", "C", 1.0),
        ("choice", "A fine question.\nb", "B", 1.0),
        ("choice", "A fine question.", "A", 0.0),
        ("choice", "The answer is A or B.", "A", 0.0),
        ("choice", "<think>A</think>The answer is D", "(D)", 1.0),
        ("f1", "The answer is the red house", "a red house", 1.0),
        ("f1", "a red barn", "red house", 0.5),
        ("f1", "<answer>Oslo!</answer>", ["Bergen", "Oslo"], 1.0),
        ("f1", "", "Oslo", 0.0),
    ],
)
def test_other_rewards(kind: str, response: str, label: Any, wanted: float) -> None:
    assert score(RewardConfig(type=kind), response, label) == wanted


def test_a_coin_is_thrown_once_for_each_sample() -> None:
    scorer = build_scorer(RewardConfig(type="random"))
    thrown = [scorer(RewardInput("", "7", index=index)) for index in range(100)]
    assert thrown == [scorer(RewardInput("", "7", index=index)) for index in range(100)]
    assert 20 < sum(thrown) < 80
    assert set(thrown) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("length", "evaluation", "wanted"),
    [(60, "", 0.0), (80, "", 0.0), (90, "", -1.0), (100, "", -2.0), (105, "", -2.0), (100, "held_out", 0.0)],
)
def test_the_penalty_on_long_responses(length: int, evaluation: str, wanted: float) -> None:
    sample = RewardInput("", "", num_response_tokens=length, max_response_tokens=100, evaluation=evaluation)
    assert overlong_penalty(sample, buffer_tokens=20, most=2.0) == wanted


@pytest.mark.parametrize(
    ("pattern", "response", "wanted"),
    [
        (r"<answer>(.*?)</answer>", "so <answer> 7 </answer>", 1.0),
        (r"<answer>(.*?)</answer>", "so 7", 0.0),
        (r"answer: (\d)", "answer: 8, answer: 7", 0.0),
        (r"\d+", "it is 7", 1.0),
        (r"a(7)?", "a", 0.0),
    ],
    ids=["group", "no match", "first match counts", "no group: the match", "empty group"],
)
def test_regex(pattern: str, response: str, wanted: float) -> None:
    assert score(RewardConfig(type="regex", pattern=pattern), response, "7") == wanted


@pytest.mark.parametrize("dataset", ["chain_sum", "spell_backward", "countdown"])
def test_reasoning_gym_scores_its_own_answers(dataset: str) -> None:
    scorer = build_scorer(RewardConfig(type="reasoning_gym"))
    for row in load_rows(DataConfig(source="reasoning_gym", dataset=dataset, size=3)):
        metadata = {key: row[key] for key in ("dataset", "options", "entry")}
        right, wrapped, wrong = (
            scorer(RewardInput(row["prompt"], text, row["label"], metadata))
            for text in (row["label"], f"I think <answer>{row['label']}</answer>.", "no idea")
        )
        assert (right, wrapped) == (1.0, 1.0)
        assert wrong < 1.0


def test_reasoning_gym_wants_its_own_rows() -> None:
    with pytest.raises(ValueError, match="the row has no dataset, options, entry"):
        score(RewardConfig(type="reasoning_gym"), "7", "7")


def test_python_function_gets_sample_and_options(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(sample, bonus):\n    return len(sample.response_text) + bonus\n")
    config = RewardConfig(type="python", path=f"{tmp_path}/mine.py:f", options={"bonus": -4.5})
    assert score(config, "abc", None) == -1.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"type": "regex"}, "no reward.pattern", id="no pattern"),
        pytest.param({"type": "regex", "pattern": "("}, "'.' is no regular expression", id="bad pattern"),
        pytest.param({"type": "python"}, "no reward.path", id="no path"),
        pytest.param(
            {"type": "python", "path": "x"}, "found reward.path 'x'; wanted module.py:function", id="bad path"
        ),
        pytest.param({"type": "python", "path": "no.py:f"}, "no file 'no.py' for reward.path", id="no file"),
    ],
)
def test_unusable_section(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_scorer(RewardConfig(**fields))
