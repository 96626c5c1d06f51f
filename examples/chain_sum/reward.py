"""Reward of a sum worked out in small steps: 1 for all of them right, at most 0.5 for a beginning of them.

    8 - 5 + 4   8 - 5 = 3, 3 + 4 = 7
    64 - 27     64 = 60 + 4, 27 = 20 + 7. Tens: 60 - 20 = 40. Ones: 4 - 7 = -3. Sum: 40 - 3 = 37

Tens and ones are summed apart, so every step is a sum of one digit, which the model can learn from few samples. Each
number is judged by itself, after the numbers that the response gave before it: a slip does not hide right steps that
follow. Credit ends where the response leaves the form, so the form is learnt first. Of an answer that the prompt has
begun (`begun` of its row) what the response adds is judged. Rows without `worked` (those of the evaluation) count the
last number alone, whatever else is written.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from ebbtide import RewardInput, last_number

LAST_EQUATION = re.compile(r"([-+\d ]+)=")
TERM = re.compile(r"([-+]?) ?(\d+)")
NUMBER = re.compile(r"-?\d+")
UNFINISHED = 0.5  # most that a wrong response can earn

Term = tuple[str, int]  # sign and size: the sum may ask for "- 0"
Steps = Generator[tuple[str, int], int, int]  # text up to a number, and what it should be; is sent what it is


def score(sample: RewardInput) -> float:
    """In [0, 1].

    Raises:
        ValueError: the prompt asks no sum of two terms or more.
    """
    if not sample.metadata.get("worked"):
        return float(last_number(sample.response_text) == last_number(str(sample.label)))
    begun = sample.metadata.get("begun", "")
    asked = terms(sample.prompt_text.removesuffix(begun))
    credit = credit_of(steps(asked), (begun + sample.response_text).strip(), len(begun))
    return credit if credit == 1 else UNFINISHED * credit


def terms(prompt: str) -> list[Term]:
    """The terms of the last "a + b - c =" in the prompt."""
    asked = LAST_EQUATION.findall(prompt)
    found = [(sign or "+", int(digits)) for sign, digits in TERM.findall(asked[-1])] if asked else []
    if len(found) < 2:
        raise ValueError(f"the prompt ends in {prompt[-80:]!r}; wanted a sum such as '38 + 45 - 17 ='")
    return found


def steps(asked: list[Term]) -> Steps:
    """The whole response, number by number."""
    signs, sizes = [sign for sign, _ in asked], [size for _, size in asked]
    if max(sizes) < 10:
        return (yield from running_sum("", sizes, signs))
    tens, ones = [], []
    for place, size in enumerate(sizes):
        tens.append((yield f"{', ' if place else ''}{size} = ", size // 10 * 10))
        ones.append((yield " + ", size % 10))
    sums = [(yield from running_sum(". Tens: ", tens, signs)), (yield from running_sum(". Ones: ", ones, signs))]
    return (yield from running_sum(". Sum: ", [sums[0], abs(sums[1])], ["+", "-" if sums[1] < 0 else "+"]))


def running_sum(begin: str, sizes: list[int], signs: list[str]) -> Steps:
    """Term by term: "60 + 40 = 100, 100 - 30 = 70". The sign of the first term is not written."""
    total = sizes[0]
    for size, sign in zip(sizes[1:], signs[1:], strict=True):
        total = yield from one_more(f"{begin}{total} {sign} {size} = ", total, sign, size)
        begin = ", "
    return total


def one_more(text: str, total: int, sign: str, size: int) -> Steps:
    """One term more; where a negative number is met, first as a sum or difference of numbers that are not."""
    if total >= 0 and (sign == "+" or size <= total):  # 9 - 4 = 5
        return (yield text, total + size if sign == "+" else total - size)
    if total < 0 and sign == "+" and size >= -total:  # -4 + 9 = 9 - 4 = 5
        larger = yield text, size
        return (yield " = ", larger - (yield " - ", -total))
    larger, smaller = (-total, size) if total < 0 else (size, total)
    joined = "+" if (total < 0) == (sign == "-") else "-"
    larger = yield f"{text}-(", larger  # 4 - 9 = -(9 - 4) = -5, -4 - 9 = -(4 + 9) = -13
    smaller = yield f" {joined} ", smaller
    return -(yield ") = -", larger + smaller if joined == "+" else larger - smaller)


def beginnings(prompt: str) -> list[str]:
    """The right answer to the prompt's sum up to each of its numbers but the last; none if there is one alone."""
    wanted, found = steps(terms(prompt)), [""]
    piece = next(wanted)
    while True:
        text, number = piece
        found.append(f"{found[-1]}{text}{number}")
        try:
            piece = wanted.send(number)
        except StopIteration:
            return found[1:-1]


def credit_of(wanted: Steps, response: str, begun: int = 0) -> float:
    """Share of the numbers that are there and right; one that is wrong in its right place counts half.

    Args:
        begun: characters of the response that are given; numbers within them do not count.
    """
    credits: list[float] = []
    at, (text, number) = 0, next(wanted)
    while True:
        found = NUMBER.match(response, at + len(text)) if response.startswith(text, at) else None
        if found is None or found.end() > begun:
            credits.append(0.0 if found is None else 1.0 if int(found[0]) == number else 0.5)
        at = found.end() if found else len(response)
        try:
            text, number = wanted.send(int(found[0]) if found else number)
        except StopIteration:
            break
    total = sum(credits) / len(credits)
    return total if at == len(response) else min(total, 1 - 1 / len(credits))
