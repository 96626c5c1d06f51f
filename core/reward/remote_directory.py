"""Which reward servers there are: their members in the rendezvous, followed through restarts by their agents."""

from __future__ import annotations

from collections.abc import Sequence

from core.processes import keys
from core.processes.rendezvous import Member, Rendezvous


class RewardDirectory:
    """The reward servers of a run. Collective: none. Usable from any thread."""

    def __init__(self, rendezvous: Rendezvous, names: Sequence[str]) -> None:
        """Keep the names of the servers.

        Args:
        names: of all reward servers, as their agents publish them.
        """
        self._rendezvous = rendezvous
        self.names = tuple(names)

    def published(self) -> list[Member]:
        """The latest incarnation of each server that has been published; it may not answer yet."""
        found = (self._rendezvous.lookup("rewards", name) for name in self.names)
        return [member for member in found if member is not None]

    def answered(self, member: Member) -> None:
        """Note that this incarnation can score."""
        self._rendezvous.set(keys.server_ready(member.name), str(member.incarnation))

    def condemn(self, member: Member) -> None:
        """Have the server's agent end this incarnation, in case it only hangs."""
        self._rendezvous.set(keys.server_condemned(member.name), str(member.incarnation))
