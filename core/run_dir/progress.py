"""The progress file: one JSON line per event of a run, appended by rank 0, shown by the terminal.

Events: begin (step, num_steps, eval_prompts: set -> number), phase (phase), step (step, metrics), eval (step, results),
end (step); all with `time`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import append_line

log = logging.getLogger(__name__)


class Progress:
    """Appends events; on ranks other than the first every call is a no-op."""

    def __init__(self, path: Path, *, active: bool = True) -> None:
        self._path = path
        self._active = active

    def event(self, event: str, **fields: Any) -> None:
        """Append one line; readers see it whole, because it is one write, unless the disk is full."""
        if self._active:
            append_line(self._path, json.dumps({"event": event, "time": time.time(), **fields}))


class ProgressReader:
    """Reads events as they come."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new_events(self) -> Iterator[dict[str, Any]]:
        """The events since the last call; a line that is still being written waits for the next call.

        A line that a full disk has cut off is left out.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    event = json.loads(line)
                except ValueError:
                    log.warning("%s: left out an event that was cut off: %r", self._path, line[:80])
                    continue
                yield event
