"""The writing of a checkpoint in a thread of its own: how it ended is told to whoever asks. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class WritingTimedOut(RuntimeError):
    """A checkpoint is still not on the disk."""


class Writing:
    """Work under way. Its thread ends with the process, whatever it is at."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """Begin.

        Args:
            name: what is written, for messages.
        """
        self._name, self._work = name, work
        self._began = time.monotonic()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"writing {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._error = error

    @property
    def has_ended(self) -> bool:
        """Whether the work is done, or has failed."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what the work has raised, if it has ended so."""
        if self.has_ended and self._error is not None:
            raise self._error

    def wait(self, timeout_s: float) -> None:
        """Return when the work is done.

        Raises:
            WritingTimedOut: it is not, in this time.
            Exception: what the work has raised.
        """
        self._thread.join(timeout_s)
        if not self.has_ended:
            seconds = time.monotonic() - self._began
            raise WritingTimedOut(
                f"{self._name} is still being written after {seconds:.0f} s: wanted an end within {timeout_s:.0f} s: "
                "look whether its disk answers"
            )
        self.check()
