"""Whose agent is gone, where Slurm ends all tasks of a step because one of them was killed.

An agent that is told to stop says so. One that was killed a moment before says nothing, and has stopped beating.
"""

from __future__ import annotations

from common.waiting import wait_until
from core.processes import keys
from core.processes.rendezvous import Rendezvous
from launchers.node.pulse import BEAT_S, Pulse

TELLING_S = 3.0  # Slurm tells all tasks at the same time, and kills them later: after 30 s, or as soon as the site says
SILENCE_S = TELLING_S - 2 * BEAT_S


def gone_without_a_word(store: Rendezvous, pulse: Pulse, num_nodes: int) -> list[int]:
    """Leader, itself told to stop: nodes that were not told and are silent. Waits `TELLING_S` at most.

    A node that is slow, and still beats, is none of them.
    """

    def not_told() -> list[int]:
        return [node for node in range(1, num_nodes) if store.get(keys.told_to_stop(node)) is None]

    if wait_until(lambda: not not_told(), TELLING_S):
        return []
    return sorted(set(not_told()) & set(pulse.lost_nodes(SILENCE_S)))
