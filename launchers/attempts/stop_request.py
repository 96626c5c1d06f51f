"""A wish that a run saves and ends: a file in the attempt's folder, which the agent of the first node looks for.

A file reaches the agent from a terminal, from another command and from another node alike, and says more than a signal:
not that time is short or the nodes are wanted, but that somebody wants the run to end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder

LOOK_S = 0.5
STOPPED = "stopped"  # the reason of the pause


def ask_to_stop(folder: Path) -> bool:
    """Leave the wish in an attempt's folder; False where that cannot be done: no folder yet, no space."""
    try:
        AttemptFolder(folder).stop.touch()
    except OSError:
        return False
    return True


class StopRequest:
    """Looked for often, seen at most every half second."""

    def __init__(self, folder: Path) -> None:
        self._path = AttemptFolder(folder).stop
        self._looked = 0.0
        self._made = False

    @property
    def made(self) -> bool:
        """Whether somebody wants the attempt to save and end."""
        if not self._made and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._made = self._seen()
        return self._made

    def _seen(self) -> bool:
        """Whether the file is there. A network file system looks again if the folder is listed, not for a mere stat."""
        try:
            return self._path.name in os.listdir(self._path.parent)
        except OSError:  # a mount that is away tells of no wish
            return False
