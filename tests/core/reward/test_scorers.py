"""The scorers on right, wrong and unusable answers; each in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config.schema import DataConfig, RewardConfig
from core.data import load_rows
from core.reward import RewardInput, build_scorer


def score(config: RewardConfig, response: str, label: Any) -> float:
    return build_scorer(config)(RewardInput("", response, label))


@pytest.mark.parametrize(
    ("response", "label", "wanted"),
    [(" 7\n", "7", 1.0), ("7", 7, 1.0), ("7.", "7", 0.0), ("", "7", 0.0), ("", "", 1.0)],
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


def test_math_label_that_is_no_mathematics_fails() -> None:
    with pytest.raises(ValueError, match="cannot parse the label ''"):
        score(RewardConfig(type="math"), "7", "")


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
