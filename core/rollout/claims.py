"""Work stealing: drivers claim prompt groups from one shared counter, so a slow engine holds nobody up.

Each round of a step has its own counter. Groups of an engine that died are not given back within a round: the ranks
agree on what is missing when the round ends, and the next round hands out just those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.processes import keys
from core.processes.rendezvous import Rendezvous

MORE_THAN_FIT = 2  # times the groups that an engine can work on: while some wait, or are half done, others are there


class Claims:
    """One round's groups, handed out in order. Every process must pass the same `groups` in the same order."""

    def __init__(self, rendezvous: Rendezvous, round_name: str, groups: Sequence[int]) -> None:
        """Keep which groups the round hands out; none is claimed yet.

        Args:
            round_name: never used before in this attempt.
        """
        self._rendezvous = rendezvous
        self._key = keys.claims(round_name)
        self._groups = list(groups)

    def next(self, count: int = 1) -> list[int]:
        """Claim up to `count` groups that nobody else has or will get; none when all are claimed."""
        end = self._rendezvous.add(self._key, count)
        return self._groups[end - count : end]


class Width(NamedTuple):
    """How one engine is kept busy."""

    requests: int  # at a time
    groups: int  # claimed for each


def engine_width(num_groups: int, num_engines: int, in_flight: int, *, may_wait: bool) -> Width:
    """How many groups an engine is asked for in one request.

    Groups of one request arrive in the engine together, so their prompts take one forward pass; but the first that are
    done wait for the last.

    Args:
        num_groups, num_engines: of the round, over all nodes.
        in_flight: groups that an engine can work on at a time.
        may_wait: whether waiting costs little; if not, each request is for one group.
    """
    share = -(-num_groups // num_engines)
    if not may_wait:
        return Width(in_flight, 1)
    if share <= in_flight:
        return Width(1, share)
    requests = min(2, in_flight)  # while one is answered, the engine has the other
    return Width(requests, in_flight // requests)
