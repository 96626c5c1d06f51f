"""Permission for an engine that shares a GPU with trainer ranks to start again: not while they have the GPU.

    agent    says that it wants to start incarnation N ─► may it? ─► it starts; else it says that it holds N back
    driver   forbids starts ─► does the agent want to start one? ─► waits until that one is up, or held back

Each speaks before it looks, so at least one of the two sees the other. Where no engine has died nobody waits, and an
engine whose starts nobody forbids, on a GPU of its own or on a CPU, starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.processes import keys
from core.processes.rendezvous import Rendezvous

FORBIDDEN, ALLOWED = "forbidden", "allowed"
WANTED, HELD = "wanted", "held"


@dataclass(frozen=True)
class Start:
    """What an agent last said of an engine's restart: the incarnation before this one has ended for certain."""

    incarnation: int
    held: bool  # False: it is starting, or has started


def try_to_start(rendezvous: Rendezvous, name: str, incarnation: int) -> bool:
    """Agent: whether it may start this incarnation now; if not, ask again."""
    if _is_allowed(rendezvous, name):
        rendezvous.set(keys.start_asked(name), f"{incarnation} {WANTED}")
        if _is_allowed(rendezvous, name):
            return True
    rendezvous.set(keys.start_asked(name), f"{incarnation} {HELD}")
    return False


def last_start(rendezvous: Rendezvous, name: str) -> Start | None:
    """Driver: what the engine's agent said last; None: the engine has never died."""
    text = rendezvous.get(keys.start_asked(name))
    if text is None:
        return None
    incarnation, state = text.split()
    return Start(int(incarnation), state == HELD)


def forbid_starts(rendezvous: Rendezvous, name: str) -> None:
    """Driver: nothing starts from now on but what `last_start` tells."""
    rendezvous.set(keys.start_granted(name), FORBIDDEN)


def allow_starts(rendezvous: Rendezvous, name: str) -> None:
    """Driver: the GPU is free for it."""
    rendezvous.set(keys.start_granted(name), ALLOWED)


def _is_allowed(rendezvous: Rendezvous, name: str) -> bool:
    return rendezvous.get(keys.start_granted(name)) != FORBIDDEN
