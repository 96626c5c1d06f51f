"""The answer of a response as a vote: what a reward compares with the label, in one spelling for equal answers.

Only of rewards that look for an answer. Nothing of a user's is called: the text alone decides.
Left out: what math-verify would find in a text without a box, and expressions that are equal and written differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.reward.answers import after_thinking, announced, behind_answer, boxed, boxed_after_thinking
from core.reward.choice import chosen_letter
from core.reward.last_number import last_number
from core.reward.plain_number import plain_number, tidy

Vote = Callable[[str], str | None]  # the text of a response -> its answer; None: it has none


def in_math(text: str) -> str | None:
    """The last box behind the thinking; without one what is announced as the answer, or a text that is a number."""
    rest = after_thinking(text)
    found = boxed(rest)
    if found is None:
        found = announced(rest) or (rest if plain_number(rest) is not None else "")
    return _spelt(found)


def in_deepscaler(text: str) -> str | None:
    """The last box behind thinking that has ended."""
    return _spelt(boxed_after_thinking(text) or "")


def in_dapo(text: str) -> str | None:
    """What follows the last "Answer:" near the end."""
    return _spelt(behind_answer(text))


def in_last_number(text: str) -> str | None:
    """The value of the last number."""
    found = last_number(text)
    return None if found is None else f"{found.normalize():f}"


VOTES: Mapping[str, Vote] = {
    "math": in_math,
    "deepscaler": in_deepscaler,
    "dapo": in_dapo,
    "last_number": in_last_number,
    "choice": chosen_letter,
}
"""`reward.type` -> how it finds the answer."""


def _spelt(answer: str) -> str | None:
    """7, 7.0 and $7$ are one answer; so are texts that differ in spaces."""
    number = plain_number(answer)
    if number is None:
        return "".join(tidy(answer).split()) or None
    return f"{number.value}{'%' * number.percent} {number.unit}".strip()
