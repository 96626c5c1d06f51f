"""What a node agent has to know before it can start anything: which attempt, which node, and how the nodes meet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.processes.rendezvous import Address


@dataclass(frozen=True)
class Seat:
    """One node's place in an attempt.

    Attributes:
        attempt: its number in the run directory, from 1.
        node: this node's number in `core.config.layout`, from 0; the first one leads.
        names: all nodes as the cluster calls them, in order; their count is the count of agents.
        host: the address under which the other nodes reach this one.
        store: where the store listens; None: this node is to serve it.
        key: the attempt's secret: it signs what is in the store and opens the engines.
        ports: where servers may listen; None: anywhere.
        ends_at: when the allocation ends, in seconds of the epoch; None: never.
        job: the Slurm job's id; empty on a machine of one's own.
        scratch: the site's directory for temporary files of a node; None: TMPDIR.
    """

    attempt: int
    node: int
    names: tuple[str, ...]
    host: str
    store: Address | None
    key: str
    ports: range | None = None
    ends_at: float | None = None
    job: str = ""
    scratch: Path | None = None

    @property
    def leads(self) -> bool:
        """The leader serves the store, judges the nodes' health and says how the attempt ended."""
        return self.node == 0

    @property
    def name(self) -> str:
        """This node as the cluster calls it."""
        return self.names[self.node]
