"""Prompts whose answers are long, and a reward that tells any two answers apart. For bench/stories.yaml.

The reward is no aim worth training for: it is cheap, and no group has equal rewards, so that no sample is left out.
"""

from __future__ import annotations

from core.reward.sample import RewardInput

HEROES = ("an old lighthouse keeper", "a young bookseller", "two brothers", "a retired clockmaker", "a stray dog")
PLACES = ("a town below a glacier", "a night train", "an island without a harbour", "the last library", "a salt desert")
EVENTS = ("finds a letter", "loses the map", "hears a bell under water", "meets a stranger who knows everything")


def rows() -> list[dict[str, str]]:
    """One row for each hero, place and event."""
    return [
        {"prompt": f"Write a long story in which {hero} in {place} {event}.", "label": ""}
        for hero in HEROES
        for place in PLACES
        for event in EVENTS
    ]


def variety(sample: RewardInput) -> float:
    """Distinct words of the response, and per mille of its characters so that equal counts differ."""
    text = sample.response_text
    return len(set(text.lower().split())) / 100 + len(text) / 1000
