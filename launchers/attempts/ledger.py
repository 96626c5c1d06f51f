"""The ledger of a run: one line when an attempt begins, one when it ends. What the next one learns."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from common.files import append_line
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import read_record
from launchers.attempts.history import Attempt, fold_attempts, read_ledger
from launchers.attempts.outcome import Outcome


class Ledger:
    """Written by the one process that holds the run's lock."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts so far, oldest first."""
        return fold_attempts(read_ledger(self._directory.ledger))

    def began(self, number: int, nodes: Sequence[str], job: str | None = None, restart: int = 0) -> None:
        """Note the start of an attempt, after closing one that nobody closed."""
        self._close_open_one()
        where = {"job": job, "restart": restart} if job is not None else {}
        self._append(
            attempt=number,
            began=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            nodes=list(nodes),
            **where,
        )

    def ended(self, number: int, outcome: Outcome, exit_code: int) -> None:
        """Note how an attempt ended."""
        began = next((attempt.began for attempt in self.attempts() if attempt.number == number), 0.0)
        steps = self._steps_since(began)
        self._append(
            attempt=number,
            ended=time.time(),
            how=outcome.how,
            exit_code=exit_code,
            steps_done=len(steps),
            next_step=max(steps) + 1 if steps else None,
            saved_step=self._directory.newest_checkpoint() or 0,
            failed_nodes=list(outcome.failed_nodes),
            cause=outcome.cause,
        )

    def _close_open_one(self) -> None:
        """An attempt whose leader was killed or lost; another node may have left a record of it."""
        for attempt in self.attempts():
            if attempt.how is None:
                failure = read_record(self._directory.attempt(attempt.number))
                lost = (failure.name,) if failure is not None and failure.role == "node" else ()
                cause = str(failure).splitlines()[0] if failure else "nobody was left to say how it ended"
                self.ended(attempt.number, Outcome("node_failure" if lost else "lost", lost, cause), 1)

    def _steps_since(self, began: float) -> list[int]:
        events = ProgressReader(self._directory.progress).new_events()
        return [event["step"] for event in events if event["event"] == "step" and event["time"] >= began]

    def _append(self, **entry: Any) -> None:
        append_line(self._directory.ledger, json.dumps(entry), durable=True)
