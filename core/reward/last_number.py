"""The last number of the response against the label, as values: "7", "7.0" and "+7" are the same.

Read as numbers: digits with an optional sign directly before them (a minus after a letter, digit or closing bracket is
a subtraction), thousands in groups of three ("1,234"), a decimal point, an exponent of up to three digits. A full stop
at the end of a sentence is no decimal point. Left out: fractions ("1/2" ends in 2), words, decimal commas, percent.
"""

from __future__ import annotations

import re
from decimal import Decimal

from core.reward.label import text_of
from core.reward.sample import RewardInput

NUMBER = re.compile(
    r"""(?P<sign>(?<![\w.)\]])[-+\u2212])?
        (?P<digits>\d{1,3}(?:,\d{3})+(?![\d]) | \d+ | (?=\.\d))
        (?P<decimals>\.\d+)?
        (?P<exponent>[eE][-+]?\d{1,3}(?!\w))?""",
    re.VERBOSE,
)


def last_number(text: str) -> Decimal | None:
    """The last number in `text`; None if there is none."""
    matches = list(NUMBER.finditer(text))
    if not matches:
        return None
    found = matches[-1]
    digits = found["digits"].replace(",", "") + (found["decimals"] or "") + (found["exponent"] or "")
    value = Decimal(digits)
    return -value if found["sign"] in ("-", "\u2212") else value


def score_last_number(sample: RewardInput) -> float:
    """1.0 if the response's last number equals the label's last number (so that "#### 72" can be a label), else 0.0.

    Raises:
        ValueError: the label holds no number.
    """
    wanted = None if isinstance(sample.label, bool) else last_number(text_of(sample.label))
    if wanted is None:
        raise ValueError(f"the label {sample.label!r} holds no number; wanted one for reward.type last_number")
    return float(last_number(sample.response_text) == wanted)
