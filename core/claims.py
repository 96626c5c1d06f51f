"""Work stealing: drivers claim prompt groups from one shared counter, so a slow engine holds nobody up.

Each round of a step has its own counter. Groups of an engine that died are not given back within a round: the ranks
agree on what is missing when the round ends, and the next round hands out just those.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.rendezvous import Rendezvous


class Claims:
    """One round's groups, handed out one by one. Every process must pass the same `groups` in the same order."""

    def __init__(self, rendezvous: Rendezvous, key: str, groups: Sequence[int]) -> None:
        self._rendezvous = rendezvous
        self._key = f"claims/{key}"
        self._groups = list(groups)

    def next(self) -> int | None:
        """Claim a group that nobody else has or will get; None when all are claimed."""
        ticket = self._rendezvous.add(self._key) - 1
        return self._groups[ticket] if ticket < len(self._groups) else None
