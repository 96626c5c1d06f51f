"""How an attempt ended: agreed by the agents over the store, written into the ledger, acted on by the job."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from common.files import write_atomically
from core.run_dir.attempt_folder import AttemptFolder
from launchers.attempts.reserve import make_room

How = Literal["complete", "failed", "interrupted", "timeout", "preempted", "node_failure", "lost"]


@dataclass(frozen=True)
class Outcome:
    """What the ledger says of an attempt.

    Attributes:
        how: complete: all steps done. timeout, preempted: saved, to be continued. interrupted: somebody stopped it.
            failed: the program failed. node_failure: a node was lost or unfit, or a process on it was killed. lost:
            nobody was left to say (found by the next attempt).
        failed_nodes: nodes that the next attempt leaves out.
        cause: one line, empty if all went well.
    """

    how: How
    failed_nodes: tuple[str, ...] = ()
    cause: str = ""

    @property
    def exit_code(self) -> int:
        """Exit code of the agent: 0 done or to be continued, 1 failed, 143 stopped."""
        return {"complete": 0, "timeout": 0, "preempted": 0, "interrupted": 143}.get(self.how, 1)

    def to_json(self) -> str:
        """The text that goes into the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "failed_nodes": tuple(fields["failed_nodes"])})


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leave it in the attempt's folder."""
    make_room(folder)  # there is nothing else to come
    write_atomically(AttemptFolder(folder).outcome, outcome.to_json())


def read_outcome(folder: Path) -> Outcome | None:
    """What `write_outcome` left; None if nobody got that far."""
    path = AttemptFolder(folder).outcome
    return Outcome.from_json(path.read_text()) if path.exists() else None
