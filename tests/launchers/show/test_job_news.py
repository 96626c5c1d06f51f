from __future__ import annotations

from pathlib import Path

import pytest

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import Advance, Attempt, History
from launchers.show.job_news import news
from launchers.show.run_state import RunState
from launchers.show.run_status import Status

FIRST = Attempt(1, how="node_failure", steps_done=3, failed_nodes=("n2",))
SECOND = Attempt(2)


@pytest.mark.parametrize(
    ("state", "attempts", "reason", "text"),
    [
        ("pending", (), "Resources", "job 7 waits in the queue (Resources)"),
        ("pending", (), "", "job 7 waits in the queue"),
        ("starting", (), "", "job 7 starts on n1, n2, n3, n4 and 2 more"),
        ("running", (FIRST, SECOND), "", "attempt 2 runs on n1, n2, n3, n4 and 2 more"),
        (
            *("between attempts", (FIRST,), "BeginTime"),
            "attempt 1 ended by node failure after 3 steps, without n2 from now on; job 7 waits to go on (BeginTime)",
        ),
        ("stopping", (SECOND,), "", "job 7 stops"),
        ("stopping", (Attempt(1, how="timeout"),), "", "attempt 1 ended by timeout; job 7 stops"),
        ("unknown", (), "squeue: no answer\nmore", "Slurm does not answer (squeue: no answer)"),
        ("failed", (), "", "job 7: failed"),
    ],
)
def test_one_line_for_each_state(state: str, attempts: tuple[Attempt, ...], reason: str, text: str) -> None:
    nodes = tuple(f"n{i}" for i in range(1, 7))
    history = History(attempts, Advance())
    assert news(Status(RunDirectory(Path("/r")), history, RunState(state), "7", nodes, reason)) == text


def test_nodes_that_are_not_known_yet() -> None:
    status = Status(RunDirectory(Path("/r")), History((), Advance()), RunState.STARTING, "7")
    assert news(status) == "job 7 starts on nodes that Slurm has not named yet"
