r"""Mathematical equality of the response's answer and the label: what is compared with what.

1. The answer is what stands in the last box behind the thinking; without a box, what math-verify finds in the text.
2. The same text is equal, and so is the same letter of a multiple choice.
3. Where both are plain numbers (`core.reward.plain_number`) their values decide, and their units, if both have one.
4. Else math-verify reads both. Numbers are compared by value, up to a millionth; all else as math-verify does.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from math_verify.errors import TimeoutException
from math_verify.utils import timeout
from sympy import Expr, I, N, Rational

from core.reward.answers import after_thinking, announced, boxed
from core.reward.choice import chosen_letter, letter_of
from core.reward.label import golds
from core.reward.plain_number import PlainNumber, plain_number, tidy
from core.reward.sample import RewardInput

NUM_STAGES = 3  # parse the label, parse the response, compare: each has a limit of its own
RELATIVE = 1.001e-6
SIGNS = {"π": r"\pi ", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge "}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
WHOLE_MATHS = re.compile(r"\$[^$]+\$|\\\(.*\\\)|\\\[.*\\\]", re.DOTALL)


class MathScorer:
    """1.0 if the answer in the response is equal to the label, or to one of a list of labels; else 0.0.

    A label is an expression ("7", "x+1", "1/2"), or holds one in $...$, in \\boxed{...} or behind "####". A response
    that cannot be read or compared within the time is wrong, not failed: it is the model's doing.
    """

    def __init__(self, timeout_s: float) -> None:
        """Divide the time limit among the stages.

        Args:
        timeout_s: the sample's time limit; the stages share it, in whole seconds.
        """
        self._stage_s = max(1, int(timeout_s / NUM_STAGES))
        self._gold = lru_cache(maxsize=1024)(self._parse_label)

    def __call__(self, sample: RewardInput) -> float:
        text = after_thinking(sample.response_text)
        answer = boxed(text)
        if answer == "" or not text.strip():
            return 0.0
        return float(any(self._equal(gold, text, answer) for gold in golds(sample.label)))

    def equal(self, gold: str, answer: str) -> bool:
        """Whether an answer that was found already is equal to the label."""
        return self._equal(gold, answer, answer)

    def _equal(self, gold: str, text: str, answer: str | None) -> bool:
        label = label_answer(gold)
        if (letter := letter_of(label)) is not None:
            return chosen_letter(text if answer is None else rf"\boxed{{{answer}}}") == letter
        if answer is not None and _bare(label) == _bare(answer):
            return True
        wanted, found = plain_number(label), plain_number(announced(text) or text if answer is None else answer)
        if wanted is not None and found is not None:
            return wanted.equals(found)
        return self._verified(label, wanted, text if answer is None else rf"\boxed{{{in_tex(answer)}}}")

    def _verified(self, label: str, wanted: PlainNumber | None, text: str) -> bool:
        parsed = self._gold(label)
        found = parse(text, parsing_timeout=self._stage_s)
        if not found:
            return False
        gold = parsed[0] if wanted is None else Rational(wanted.value.numerator, wanted.value.denominator)
        try:
            same = timeout(timeout_seconds=self._stage_s)(_same_number)(gold, found[0])
        except (Exception, TimeoutException):
            return False
        if same is not None:
            return bool(same)
        return bool(verify(parsed, found, timeout_seconds=self._stage_s))

    def _parse_label(self, label: str) -> Any:
        # bare text is searched for expressions ("2x+1" would be read as 1): say that all of it is the answer
        marked = label if WHOLE_MATHS.search(label) else rf"\boxed{{{in_tex(label)}}}"
        gold = parse(marked, parsing_timeout=self._stage_s)
        if not gold and plain_number(label) is None:
            raise ValueError(f"math-verify cannot parse the label {label!r}; wanted a mathematical expression")
        return gold


def label_answer(label: str) -> str:
    """What of a label's text is the answer: its last box, what follows the last "####", or all of it."""
    found = boxed(label)
    return tidy(found if found else label.rpartition("####")[2])


def in_tex(text: str) -> str:
    """Signs that people type (√2, 3², ½) as TeX, which math-verify reads."""
    text = re.sub(r"√\s*(\w+|\([^()]*\))", lambda match: rf"\sqrt{{{match[1].strip('()')}}}", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda match: f"^{{{match[0].translate(RAISED)}}}", text)
    text = re.sub(r"([\u00bc-\u00be\u2150-\u215e])", _fraction, text)
    for sign, tex in SIGNS.items():
        text = text.replace(sign, tex)
    return text


def _fraction(match: re.Match[str]) -> str:
    value = plain_number(match[1])
    return match[1] if value is None else rf"\frac{{{value.value.numerator}}}{{{value.value.denominator}}}"


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", tidy(text))


def _same_number(gold: Any, found: Any) -> bool | None:
    """Whether two numbers have the same value; None: one is no number."""
    numbers = [_number(one) for one in (gold, found)]
    if None in numbers:
        return None
    one, other = numbers
    if one.is_Integer and other.is_Integer:
        return bool(one == other)
    difference = abs(N(one - other, 15))
    return bool(difference <= RELATIVE * max(abs(N(one, 15)), abs(N(other, 15))))


def _number(value: Any) -> Any:
    """The number that an expression is, `i` being the imaginary unit in e^{i…}; None: it is none."""
    if not isinstance(value, Expr):
        return None
    symbols = {symbol.name: symbol for symbol in value.free_symbols}
    if set(symbols) == {"i"}:
        value = value.subs({symbols["i"]: I})
    return value if value.is_number and value.is_finite else None
