"""Reward of a list of words: 1 for the wanted list, at most 0.5 for one that begins or ends like it.

Evaluations count a reward above 0.5, so their accuracy is that of whole lists.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.reward.sample import RewardInput

PARTIAL = 0.5


def score(sample: RewardInput, partial: float = PARTIAL) -> float:
    """1.0 if the response is the label, white space at both ends apart, else `partial` times the share of right places.

    A place is right if the word there is; the share is of the longer list, so that surplus words cost.
    """
    if sample.response_text.strip() == str(sample.label).strip():
        return 1.0
    found, wanted = words(sample.response_text), words(str(sample.label))
    return partial * right_places(found, wanted)


def words(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",")]


def right_places(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of the longer list's places in which both have the same word."""
    return sum(a == b for a, b in zip(found, wanted, strict=False)) / max(len(found), len(wanted))
