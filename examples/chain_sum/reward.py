"""Reward of a sum worked out in steps: 1 for the right last number, at most 0.2 for anything else.

The steps of 38 + 45 - 17 are written "38 + 45 = 83, 83 - 17 = 66". Only a response that holds such steps and nothing
else earns part of the 0.2, so that neither rambling nor one answer for all questions pays. Each step is judged by
itself: the second one starts at whatever number the first one gave, so a slip in the first does not hide a right
second. Evaluations count a reward above 0.5, so their accuracy is that of the last number alone.
"""

from __future__ import annotations

import math
import re

from core.reward.last_number import last_number
from core.reward.sample import RewardInput

LAST_EQUATION = re.compile(r"([-+\d ]+)=")
TERM = re.compile(r"([-+]?) ?(\d+)")
PARTIAL = 0.2
FAR = 100  # a result this far off earns nothing by its distance


def score(sample: RewardInput, partial: float = PARTIAL) -> float:
    """1.0 if the response's last number is the label, else `partial` times the mean credit of its steps.

    Raises:
        ValueError: the prompt asks no sum of two terms or more.
    """
    if last_number(sample.response_text) == last_number(str(sample.label)):
        return 1.0
    return partial * step_credit(terms(sample.prompt_text), sample.response_text)


def terms(prompt: str) -> list[int]:
    """The signed terms of the last "a + b - c =" in the prompt."""
    asked = LAST_EQUATION.findall(prompt)
    found = [int(sign + digits) for sign, digits in TERM.findall(asked[-1])] if asked else []
    if len(found) < 2:
        raise ValueError(f"the prompt ends in {prompt[-80:]!r}; wanted a sum such as '38 + 45 - 17 ='")
    return found


def step_credit(signed: list[int], response: str) -> float:
    """Mean credit, in [0, 1], of the steps that the sum needs; 0 if anything else is written."""
    total, credit = signed[0], 0.0
    steps = response.strip().split(", ")
    if len(steps) >= len(signed):
        return 0.0
    for step, term in zip(steps, signed[1:], strict=False):
        left = re.escape(f"{total} {'-' if term < 0 else '+'} {abs(term)} = ")
        result = re.fullmatch(rf"{left}(-?\d+)", step)
        if result is None:
            return 0.0
        credit += nearness(int(result[1]), total + term)
        total = int(result[1])
    return credit / (len(signed) - 1)


def nearness(found: int, wanted: int) -> float:
    """In [0, 1]; 0 under the wrong sign, else half for the units digit and half for the distance, logarithmic."""
    if (found < 0) != (wanted < 0):
        return 0.0
    near = 1 - math.log1p(abs(found - wanted)) / math.log1p(FAR)
    return 0.5 * (abs(found) % 10 == abs(wanted) % 10) + 0.5 * max(0.0, near)
