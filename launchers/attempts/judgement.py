"""How an attempt ended, worked out of what its nodes saw fail.

Every node leaves a record of what it saw in the attempt's folder `failures/`; the leader picks the one that explains
the others and leaves it as the attempt's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.waiting import wait_until
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from launchers.attempts.failure import Failure, first_cause, from_exception, read_record, write_record
from launchers.attempts.outcome import Outcome
from launchers.attempts.stop_request import STOPPED

RECORDS_GRACE_S = 2.0  # other nodes' failure records of the same event
RECORDS_DEADLINE_S = 10.0

log = logging.getLogger("agent")


def lost_node(name: str, at: Moment, silence_s: float) -> Failure:
    """The failure of a node that has fallen silent."""
    cause = f"not heard of for {silence_s:.0f} s: the node, its network or its agent is gone"
    return Failure("node", name, at, cause, 0)


def outcome_when_left(paused: str | None) -> Outcome:
    """All ranks have ended well: done, or asked to pause for this reason."""
    if paused is None:
        return Outcome("complete")
    if paused == STOPPED:
        return Outcome("interrupted", cause="saved and left: somebody stopped it")
    return Outcome("preempted" if paused == "preempted" else "timeout", cause=f"saved and left: {paused}")


def outcome_of(failure: Failure) -> Outcome:
    """Whether the program failed or a node did."""
    cause = str(failure).splitlines()[0]
    if failure.blames_node:
        return Outcome("node_failure", (failure.name if failure.role == "node" else failure.host,), cause)
    return Outcome("failed", cause=cause)


def leave_records(folder: Path, failures: Sequence[Failure], leads: bool) -> None:
    """What a node saw fail, for the leader to judge; if that is the leader's node, for whoever comes next."""
    for failure in failures:
        failure.write(AttemptFolder(folder).failure_of(failure.role, failure.name))
        if not leads and failure.role == "node" and read_record(folder) is None:
            write_record(folder, failure)  # the leader is gone: nobody else will


def leave_agent_record(folder: Path, node: int, error: BaseException) -> Failure:
    """An agent's own error, which it may have had no store to tell of."""
    failure = from_exception(error, "agent", str(node), Moment(), str(AttemptFolder(folder).agent_log(node)))
    failure.write(AttemptFolder(folder).failure_of("agent", str(node)))
    return failure


def agents_failed(folder: Path) -> bool:
    """Whether an agent has left a record of an error of its own."""
    return bool(AttemptFolder(folder).failures("agent"))


def judge_records(folder: Path, seen: Sequence[Failure], reporter: str, at: Moment) -> Outcome:
    """Leader: the outcome by the first cause of all that was seen, which is left as the attempt's failure.

    Args:
        seen: by the leader itself; all nodes among them are left out from now on.
        reporter, at: who spoke of a failure, and when, in case nobody left a record.
    """
    without_record = Failure("agent", reporter, at, "reported a failure, but left no record of it", 0)
    first = first_cause(_await_records(folder) or [without_record])
    write_record(folder, first)
    log.error("%s", first)
    outcome = outcome_of(first)
    unfit = tuple(failure.name for failure in seen if failure.role == "node")
    return replace(outcome, failed_nodes=unfit or outcome.failed_nodes)


def _await_records(folder: Path) -> list[Failure]:
    """What all nodes wrote about this event; those of other nodes may take a moment to be seen."""
    time.sleep(RECORDS_GRACE_S)
    attempt = AttemptFolder(folder)
    wait_until(lambda: bool(attempt.failures()), RECORDS_DEADLINE_S)
    return [Failure.read(path) for path in attempt.failures()]
