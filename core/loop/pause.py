"""Stopping in time: the ranks agree, between two steps, that no further step is begun. Amid one, the rollout asks.

Two reasons: somebody asked (the cluster's warning ahead of the time limit, a preemption), or the allocation ends before
another step could be finished and saved. The time left counts to the end of the allocation, not from the start of the
program: getting started has taken some of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from core.processes import keys
from core.processes.collective import broadcast
from core.processes.rendezvous import Rendezvous

TIMEOUT = "timeout"
MARGIN = 1.2  # steps vary: responses get longer

log = logging.getLogger(__name__)


class Pause:
    """Asked before every step. Collective: all trainer ranks; rank 0 decides."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        *,
        ends_at: float | None,
        reserve_s: float,
        decides: bool,
        first_step_s: float = 0.0,
        ask_end: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the end of the allocation and the time to reserve before it.

        Args:
        ends_at: when the allocation ends, in seconds of the epoch; None: never.
        reserve_s: time to keep for a step and its checkpoint while nothing is known of either.
        decides: whether this is the rank that asks and decides (rank 0).
        ask_end: the end as the cluster knows it now, asked when there seems to be no time left; None: as before.
        first_step_s: what the first step is guessed to take, from earlier attempts; 0: nothing is known.
        """
        self._rendezvous = rendezvous
        self._ends_at = ends_at
        self._reserve_s = reserve_s
        self._decides = decides
        self._clock = clock
        self._last: float | None = None
        self._ask_end = ask_end
        self._longest_step_s = 0.0  # of this attempt
        self._first_step_s = first_step_s

    def due(self, step: int) -> bool:
        """Whether to stop before `step`. True at most once: then the run is saved and left.

        Collective: all trainer ranks; one small broadcast.
        """
        reason = broadcast(self._reason(step) if self._decides else None)
        if reason and self._decides:
            self._rendezvous.set(keys.PAUSED, reason)
        return reason is not None

    def _reason(self, step: int) -> str | None:
        now = self._clock()
        if self._last is not None:
            self._longest_step_s = max(self._longest_step_s, now - self._last)
        self._last = now
        if (asked := self._rendezvous.get(keys.PAUSE_ASKED)) is not None:
            log.info("pause step=%d reason=%s", step, asked)
            return asked
        if self._ends_at is None or self._ends_at - now > self.needed_s:
            return None
        self._ends_at = self._ask_end() or self._ends_at  # somebody may have raised the limit
        if self._ends_at - now > self.needed_s:
            return None
        log.info("pause step=%d seconds_left=%.0f needed=%.0f", step, self._ends_at - now, self.needed_s)
        return TIMEOUT

    @property
    def needed_s(self) -> float:
        """What a step and its checkpoint take: the longest step so far (its checkpoint and evaluation included) and
        once more the time to save; before the first step, the reserve and what such a step took in earlier attempts.
        """
        return MARGIN * (self._longest_step_s or self._first_step_s) + self._reserve_s
