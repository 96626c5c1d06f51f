"""The nearest known word to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, case and hyphens aside; None if nothing is near enough to be meant."""
    by_folded = {_fold(candidate): candidate for candidate in known}
    matches = get_close_matches(_fold(word), list(by_folded), n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def _fold(word: str) -> str:
    return word.casefold().replace("-", "_")
