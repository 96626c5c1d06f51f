"""Signals to a node agent: whoever ends it asks it to stop, and the cluster's warning asks the run to pause."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from core.processes import keys
from launchers.node import early
from launchers.node.pulse import Pulse

log = logging.getLogger("agent")


class Signals:
    """What signals have asked of an agent so far."""

    def __init__(self, pulse: Pulse, node: int) -> None:
        """Have nothing asked.

        Args:
            pulse: over which the others hear of it.
            node: the agent's.
        """
        self.stop_asked = False
        self.paused_for: str | None = None  # the cluster's reason, once it has warned
        self.warned_at = 0.0  # monotonic
        self._pulse, self._node = pulse, node

    @property
    def asked(self) -> bool:
        """Whether there was one."""
        return self.stop_asked or self.paused_for is not None

    @contextmanager
    def obeyed(self, pause_reason: Callable[[], str]) -> Iterator[None]:
        """Act on signals, on those first that came before.

        Args:
            pause_reason: called in a SIGUSR2 handler: why the cluster wants this run to pause.
        """

        def pause(number: int, frame: FrameType | None) -> None:
            del frame
            self._ask_to_pause(number, pause_reason())

        handlers = {signal.SIGTERM: self._ask_to_stop, signal.SIGINT: self._ask_to_stop, signal.SIGUSR2: pause}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        for number in early.take():
            handlers[signal.Signals(number)](number, None)
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        log.warning("stopping on %s", signal.Signals(number).name)
        self.stop_asked = True
        self._pulse.post(keys.told_to_stop(self._node), "yes")

    def _ask_to_pause(self, number: int, reason: str) -> None:
        self.paused_for, self.warned_at = reason, time.monotonic()
        log.warning("%s: pausing before the next step (%s)", signal.Signals(number).name, reason)
        self._pulse.post(keys.PAUSE_ASKED, reason)
