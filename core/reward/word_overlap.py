"""Overlap of the words of response and label: the F1 that question answering is measured by.

Source: SQuAD, arXiv:1606.05250, section 6.1: small letters, no punctuation, no English articles.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from core.reward.answers import after_thinking, announced, boxed
from core.reward.label import refuse_misfit, text_of
from core.reward.sample import RewardInput

ARTICLES = {"a", "an", "the"}
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_f1(sample: RewardInput) -> float:
    """The harmonic mean of precision and recall of words, in [0, 1]; the best one over a list of labels.

    The answer is what stands in the last <answer>...</answer> or box, or behind "answer is", else the whole response
    behind its thinking.
    """
    refuse_misfit(sample.label, "f1")
    text = after_thinking(sample.response_text)
    tagged = TAGGED.findall(text)
    found = tagged[-1] if tagged else boxed(text) or announced(text) or text
    golds = sample.label if isinstance(sample.label, list | tuple) else [sample.label]
    return max(f1(words(found), words(text_of(gold))) for gold in golds)


def words(text: str) -> list[str]:
    """The words that count."""
    return [word for word in text.lower().translate(NO_PUNCTUATION).split() if word not in ARTICLES]


def f1(found: list[str], wanted: list[str]) -> float:
    """F1 of two lists of words; a word counts as often as both have it."""
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))
