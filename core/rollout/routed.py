"""Experts of a response that came about in several calls of an engine, put together by the places of its tokens.

A token's experts depend on it and on all tokens before it. So those of a call hold as far as the response, with its
prompt, begins as the call's tokens do, whoever has put it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.samples import FlatRouting


class Routed(NamedTuple):
    """One call of an engine."""

    tokens: Sequence[int]  # prompt and response
    routing: FlatRouting  # of all of them but the last


def gone_on_from(begun: Routed, call: Routed) -> bool:
    """Whether a call's tokens begin with all of another's, which says nothing more then."""
    return common_length(begun.tokens, call.tokens) == len(begun.tokens)


def of_common_beginning(tokens: Sequence[int], calls: Sequence[Routed]) -> FlatRouting | None:
    """The experts of as much of a prompt and its response as some call has seen; None: of nothing."""
    known = [one.routing[: common_length(tokens, one.tokens)] for one in calls]
    longest = max(known, key=len, default=None)
    return None if longest is None or not len(longest) else longest


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
