r"""Texts that are one number and nothing else, as people write them, read without a mathematics library.

Read: "1,234", "1 234", "1{,}234", "1e-6", "1/2", "1 1/4", "½", "$18.50", "50%", "12 cm", "12 \text{ cm}^2", "3 m".
Left out: words, decimal commas, everything with a variable.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

TOLERANCE = Fraction(1001, 10**9)  # relative: six digits of a third are right, three are not
MAX_EXPONENT = 300  # more would only fill memory

_WORDS = """
    mm cm dm m km in inch inche inches foot feet ft yard yd mile mi mg g gram kg pound lb ounce oz ton ml l liter litre
    ms s sec second min minute h hr hour day week month year degree cent dollar euro unit mph kmh percent point people
    meter metre centimeter centimetre kilometer kilometre millimeter millimetre
"""
UNITS = {name for word in _WORDS.split() for name in (word, word + "s")}
NUMBER = re.compile(
    r"""(?P<sign>[-+]?)\s*(?:\$|€|£)?\s*(?P<sign2>[-+]?)
        (?:(?P<whole>\d+)\s+(?P<above2>\d+)\s*/\s*(?P<below2>\d+)
          |(?P<above>\d+)\s*/\s*(?P<below>\d+)
          |(?P<digits>\d{1,3}(?:[ ,]\d{3})+|\d+|(?=\.\d))(?P<decimals>\.\d*)?(?:[eE](?P<exponent>[-+]?\d{1,3}))?)
        \s*(?P<percent>%)?\s*(?P<unit>.*)""",
    re.VERBOSE | re.DOTALL,
)
MARKED_UNIT = re.compile(
    r"\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{\s*(?P<name>[^{}]*?)\s*\}(?P<rest>.*)", re.DOTALL
)
POWER = re.compile(r"(?:\^\s*\{?\s*[23]\s*\}?)?")
REWRITES = (
    (re.compile(r"\\(?:left|right|displaystyle|!)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[,;: ]|~|\u00a0|\u202f"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\u2212"), "-"),
    (re.compile(r"\\[dt]frac(?![a-zA-Z])"), r"\\frac"),
)


class PlainNumber(NamedTuple):
    """A value, and what was written behind it."""

    value: Fraction
    percent: bool = False
    unit: str = ""

    def equals(self, other: PlainNumber) -> bool:
        """The same value up to rounding; units only have to agree where both have one. 50 % is 50 as well as 0.5."""
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if same_value(self.value, other.value):
            return True
        if self.percent == other.percent:
            return False
        scaled = (self.value / 100, other.value) if self.percent else (self.value, other.value / 100)
        return same_value(*scaled)


def same_value(one: Fraction, other: Fraction) -> bool:
    """Integers have to be equal, other numbers up to a millionth of the larger one."""
    if one.denominator == 1 and other.denominator == 1:
        return one == other
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))


def tidy(text: str) -> str:
    """The text without what only changes how it looks: spacing, dollars around it, a full stop at its end."""
    for pattern, plain in REWRITES:
        text = pattern.sub(plain, text)
    text = text.strip().strip("*").rstrip(".").strip()
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text.strip("$").strip()
    return text


def plain_number(text: str) -> PlainNumber | None:
    """The number that `text` is; None: it is something else, or more."""
    text = re.sub(r"(\d?)([^\W\d_]|[\u00bc-\u00be\u2150-\u215e])", _fraction_sign, tidy(text))
    bare = text.strip("() ")
    if text == "(" * (depth := (len(text) - len(bare)) // 2) + bare + ")" * depth:
        text = bare
    match = NUMBER.fullmatch(text)
    unit = None if match is None else _unit(match["unit"])
    if match is None or unit is None or (match["sign"] and match["sign2"]):
        return None
    value = _value(match)
    if value is None:
        return None
    negative = "-" in (match["sign"], match["sign2"])
    return PlainNumber(-value if negative else value, match["percent"] is not None or unit == "percent", unit)


def _fraction_sign(match: re.Match[str]) -> str:
    """`½` as ` 1/2`, whatever digit stands before it."""
    parts = unicodedata.normalize("NFKD", match[2]).split("\u2044")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return match[0]
    return f"{match[1]} {parts[0]}/{parts[1]}".lstrip()


def _value(match: re.Match[str]) -> Fraction | None:
    if match["whole"] is not None:
        below = int(match["below2"])
        return int(match["whole"]) + Fraction(int(match["above2"]), below) if below else None
    if match["above"] is not None:
        below = int(match["below"])
        return Fraction(int(match["above"]), below) if below else None
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    digits = re.sub("[ ,]", "", match["digits"]) + (match["decimals"] or "").rstrip(".")
    return Fraction(digits or "0") * Fraction(10) ** exponent


def _unit(text: str) -> str | None:
    """The unit that `text` is, empty without one; None: it is none."""
    if not text:
        return ""
    marked = MARKED_UNIT.fullmatch(text)
    name, rest = (marked["name"], marked["rest"]) if marked else (text, "")
    power = "".join(re.findall(r"\^\s*\{?\s*([23])", text))
    word = re.sub(r"\s*\^.*", "", name).strip().lower()
    known = marked is not None or word in UNITS or word in ("^\\circ", "°", "\\circ")
    if not known or not POWER.fullmatch(rest.strip()):
        return None
    return (word.removesuffix("s") or word) + power
