"""Every key that processes of a run use in its store, and what stands under it. No other file spells one.

A `Key` comes from here alone: what writes and reads the store takes nothing else, and the type checker sees to it.
`Rendezvous` puts the attempt's number in front of each. In the same store torch keeps keys of its own, under the names
of process groups: the trainer ranks', and the groups in which weights are broadcast.

    nodes      gate, canary, health/N, listeners, reach/N ──► pulse/N, phase ──► told-to-stop/N, failed, ended, left
    ranks      offload, claims/…, pause-asked ──► paused
    processes  member/ROLE/NAME
    servers    server/NAME/ready, condemned; start-asked ──► start-granted; arms-told ──► arm-ended/RANK
"""

from __future__ import annotations

from typing import NewType

Key = NewType("Key", str)

GATE = Key("gate")
"""Leader: "open" once all nodes are fit."""

CANARY = Key("canary")
"""Leader: what it has written into a file of the run directory, for the others to find there."""

LISTENERS = Key("listeners")
"""Leader: where each node listens while the gate is closed, for its neighbour to try."""

PHASE = Key("phase")
"""Rank 0: what the run is doing, a `Moment`."""

PAUSE_ASKED = Key("pause-asked")
"""An agent: why the cluster wants the run to pause before its next step."""

PAUSED = Key("paused")
"""Rank 0: why the ranks have agreed to save and leave."""

FAILED = Key("failed")
"""An agent: the name of its node, something of which has failed; its record is in the attempt's folder by then."""

ENDED = Key("ended")
"""Leader: how the attempt ended, an `Outcome`."""

LEFT = Key("left")
"""Count of agents that have heard how the attempt ended, and need the store no more."""

OFFLOAD = Key("offload")
"""Asked of all trainer ranks with `Rendezvous.any_of`: whether one of them has too little memory for trainer and engine
at once.
"""


def health(node: int) -> Key:
    """Each agent: how its node is (`NodeReport`), and where it listens."""
    return Key(f"health/{node}")


def reach(node: int) -> Key:
    """Each agent: why it does not reach the next node; empty: it does."""
    return Key(f"reach/{node}")


def pulse(node: int) -> Key:
    """Each agent: a number that grows as long as its node lives."""
    return Key(f"pulse/{node}")


def told_to_stop(node: int) -> Key:
    """Each agent: that a signal has told it to stop."""
    return Key(f"told-to-stop/{node}")


def member(role: str, name: str) -> Key:
    """Each process of a role: who fills it, a `Member`."""
    return Key(f"member/{role}/{name}")


def claims(round_name: str) -> Key:
    """Count of groups that drivers have claimed in one round of a rollout."""
    return Key(f"claims/{round_name}")


def server_ready(name: str) -> Key:
    """Whoever asks an engine or a reward server: its latest incarnation that has answered; from then on its death is
    mended.
    """
    return Key(f"server/{name}/ready")


def server_condemned(name: str) -> Key:
    """Whoever asks it: the incarnation that hangs, or is given up, and is to be ended by its agent."""
    return Key(f"server/{name}/condemned")


def start_asked(name: str) -> Key:
    """Key by which a server's agent asks to start an incarnation, or holds it back (`core.engines.starts`)."""
    return Key(f"server/{name}/start-asked")


def start_granted(name: str) -> Key:
    """Key by which a server's driver says whether a new incarnation may start now."""
    return Key(f"server/{name}/start-granted")


def arms_told(name: str) -> Key:
    """Agent of an engine over several nodes, to those of its arms: which incarnation is to run, and where it meets, or
    which is to end (`launchers/node/arms.py`).
    """
    return Key(f"server/{name}/arms-told")


def arm_ended(name: str, rank: int) -> Key:
    """Agent of an arm: the incarnation that has ended for certain, and how."""
    return Key(f"server/{name}/arm-ended/{rank}")


def votes(question: Key) -> tuple[Key, Key]:
    """Counts of ranks that have said yes to a question of `Rendezvous.any_of`, and of those that have answered."""
    return Key(f"{question}/yes"), Key(f"{question}/answers")
