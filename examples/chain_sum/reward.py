"""Reward of a sum worked out in steps: 1 for the right last number, at most 0.5 for anything else.

The steps of 38 + 45 - 17 are written "38 + 45 = 83, 83 - 17 = 66". Each is judged by itself: the second one starts at
whatever number the first one gave, so a slip in the first does not hide a right second. What a step gave earns half by
its units digit and half by its distance. Evaluations count a reward above 0.5, so their accuracy is that of the last
number alone.
"""

from __future__ import annotations

import math
import re

from core.reward.last_number import last_number
from core.reward.sample import RewardInput

LAST_EQUATION = re.compile(r"([-+\d ]+)=")
TERM = re.compile(r"([-+]?) ?(\d+)")
PARTIAL = 0.5  # what flawless steps with a wrong end would earn
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
    """Mean credit, in [0, 1], of the steps that the sum needs; a step that is not there earns nothing."""
    total, credit = signed[0], 0.0
    for term in signed[1:]:
        left = re.escape(f"{total} {'-' if term < 0 else '+'} {abs(term)} = ")
        step = re.search(rf"(?<!\d){left}(-?\d+)", response)
        if step is None:
            break
        credit += nearness(int(step[1]), total + term)
        total = int(step[1])
    return credit / (len(signed) - 1)


def nearness(found: int, wanted: int) -> float:
    """In [0, 1]: half for the right units digit under the right sign, half for the distance, on a logarithmic scale."""
    same_units = abs(found) % 10 == abs(wanted) % 10 and (found < 0) == (wanted < 0)
    return 0.5 * same_units + 0.5 * max(0.0, 1 - math.log1p(abs(found - wanted)) / math.log1p(FAR))
