"""Labels as scorers read them: what of a row can tell right from wrong, and the text or number that it stands for."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from common.mistake import Wrong, show
from core.reward.code_tests import WANTED_TESTS, read_tests
from core.reward.plain_number import plain_number

WANTED = {
    "math": "text with an expression, a number, or a list of such",
    "deepscaler": "text with an expression, a number, or a list of such",
    "dapo": "text or a number",
    "f1": "text or a list of texts",
    "choice": "a letter from A to J",
    "exact": "text, a number, true or false",
    "regex": "text, a number, true or false",
    "last_number": "a number, or text with one",
    "code": WANTED_TESTS,
}
"""What each scorer that compares with a label wants of it."""
MAY_BE_LISTS = ("math", "deepscaler", "f1")


def misfit(label: Any, reward_type: str) -> str | None:
    """What about a label cannot be compared with, as a noun phrase ("an empty text"); None: it fits."""
    if reward_type == "code":
        return _misfit_of_tests(label)
    if isinstance(label, list | tuple) and reward_type in MAY_BE_LISTS:
        if not label:
            return "an empty list"
        return next((found for one in label if (found := _misfit_of_one(one, reward_type))), None)
    return _misfit_of_one(label, reward_type)


def _misfit_of_tests(label: Any) -> str | None:
    try:
        read_tests(label)
    except Wrong as wrong:
        return wrong.found
    except ValueError as error:  # JSON within the tests that is none
        return f"{show(label)} ({error})"
    return None


def _misfit_of_one(label: Any, reward_type: str) -> str | None:
    if isinstance(label, str):
        if not label.strip():
            return f"the empty text {show(label)}"
    elif not isinstance(label, int | float | Decimal):
        return show(label)
    elif not math.isfinite(label):
        return str(label)
    if isinstance(label, bool) and reward_type not in ("exact", "regex"):
        return show(label)
    if reward_type == "last_number":
        from core.reward.last_number import last_number

        return None if last_number(text_of(label)) is not None else show(label)
    if reward_type == "choice":
        from core.reward.choice import letter_of

        return None if letter_of(label) else show(label)
    return None


def refuse_misfit(label: Any, reward_type: str) -> None:
    """Hold a label to what its scorer can compare with.

    Raises:
        Wrong: it could only be right by accident, or never.
    """
    if (found := misfit(label, reward_type)) is not None:
        raise Wrong(f"the label {found}", WANTED[reward_type], "correct or leave out the row")


def text_of(label: Any) -> str:
    """A label as text: numbers in digits alone, without zeros that say nothing; true and false in small letters.

    0.00001 -> "0.00001", 72.0 -> "72", 1e16 -> "10000000000000000", True -> "true"
    """
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float | Decimal):
        text = format(Decimal(str(label)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(label)


def golds(label: Any) -> list[str]:
    """Each of the answers that a label gives.

    Raises:
        Wrong: it is none that an answer can be compared with.
    """
    refuse_misfit(label, "math")
    return [text_of(one) for one in (label if isinstance(label, list | tuple) else [label])]


def same_text(found: str, label: Any) -> bool:
    """Whether a text is the label: by value if that is a number, else letter by letter, but for space around it."""
    if isinstance(label, bool):
        return found.strip().lower() == text_of(label)
    if isinstance(label, int | float | Decimal):
        number, wanted = plain_number(found), plain_number(text_of(label))
        return number is not None and wanted is not None and number.equals(wanted)
    return found.strip() == str(label).strip()
