"""Answers as votes: found where the reward looks, and spelt alike where they are equal."""

from __future__ import annotations

import pytest

from core.config.sections.reward import RewardConfig
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer
from core.reward.votes import VOTES

BOX = r"So \boxed{%s}."
SAME = {
    "math": [BOX % "7", BOX % "7.0", BOX % r"\$7", "The answer is 7.", "7", "<think>8</think> " + BOX % " 7 "],
    "deepscaler": ["<think>x</think> " + BOX % "1/2", "</think>" + BOX % "0.5", r"</think>\boxed{8} no, \boxed{½}"],
    "dapo": ["Answer: 12", "so\nanswer : 12.0", r"Answer: \boxed{12}"],
    "last_number": ["7 or 8", "it is 8.00", "+8"],
    "choice": [BOX % "C", "The answer is (C).", "C"],
}
NONE = {
    "math": ["", "no idea", BOX % "", "<think> 7"],
    "deepscaler": [BOX % "7", "</think> 7"],
    "dapo": ["12", "Answer: 12" + " " * 300],
    "last_number": ["seven"],
    "choice": ["perhaps", BOX % "7"],
}


@pytest.mark.parametrize(("kind", "texts"), SAME.items(), ids=SAME)
def test_equal_answers_are_one_vote_and_equal_to_the_reward(kind: str, texts: list[str]) -> None:
    votes = {VOTES[kind](text) for text in texts}
    assert len(votes) == 1
    assert None not in votes
    label = {"deepscaler": "1/2", "dapo": "12", "last_number": "8", "choice": "C"}.get(kind, "7")
    scorer = build_scorer(RewardConfig(type=kind))
    assert [scorer(RewardInput("p", text, label=label)) for text in texts] == [1.0] * len(texts)


@pytest.mark.parametrize(("kind", "texts"), NONE.items(), ids=NONE)
def test_a_response_without_an_answer_has_no_vote(kind: str, texts: list[str]) -> None:
    assert [VOTES[kind](text) for text in texts] == [None] * len(texts)


def test_different_answers_are_different_votes() -> None:
    texts = [BOX % answer for answer in ("7", "8", "7 cm", "7%", "x+7", "(1, 2)", "12")]
    assert len({VOTES["math"](text) for text in texts}) == len(texts)
