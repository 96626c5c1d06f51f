"""A letter of a multiple choice: the response's against the label's."""

from __future__ import annotations

import re

from core.reward.answers import after_thinking, announced, boxed
from core.reward.sample import RewardInput

LETTERS = "ABCDEFGHIJ"
ONE = re.compile(rf"\(?([{LETTERS}])\)?[.:]?")
FIRST = re.compile(rf"\(?([{LETTERS}])(?:\)|[.:](?!\w)|\s*$)")
COMMANDS = re.compile(r"\\(?:textbf|textrm|text|mathrm|mathbf)\s*|[{}$*]")
LAST_LINE = re.compile(rf"(?:option|choice)?\s*\(?([{LETTERS}])\)?[.:]?", re.IGNORECASE)


def letter_of(label: object) -> str | None:
    """The letter that a label is ("C", "(C)", "C."); None: it is none."""
    match = ONE.fullmatch(label.strip()) if isinstance(label, str) else None
    return match[1] if match else None


def chosen_letter(response: str) -> str | None:
    """The letter that a response decides for: in its last box, behind "answer is", or as its last line."""
    text = after_thinking(response)
    for found in (boxed(text), announced(text)):
        if found is not None:
            plain = COMMANDS.sub("", found).strip()
            match = FIRST.match(plain) or ONE.fullmatch(plain)
            return match[1] if match else None
    lines = text.strip().splitlines()
    match = LAST_LINE.fullmatch(COMMANDS.sub("", lines[-1]).strip()) if lines else None
    return match[1].upper() if match else None


def score_choice(sample: RewardInput) -> float:
    """1.0 if the response decides for the label's letter, else 0.0.

    Raises:
        ValueError: the label is no letter.
    """
    wanted = letter_of(sample.label)
    if wanted is None:
        raise ValueError(f"the label {sample.label!r} is no letter from A to J; wanted one for reward.type choice")
    return float(chosen_letter(sample.response_text) == wanted)
