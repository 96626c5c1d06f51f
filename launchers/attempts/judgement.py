"""How an attempt ended, worked out of what its nodes saw fail.

Every node leaves a record of what it saw in the attempt's folder `failures/`; the leader picks the one that explains
the others and leaves it as the attempt's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
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
LOOK_S = 0.2
END_SLACK_S = 5.0  # between the clock of the node and Slurm's

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


def outcome_when_ended(asked: str | None, at: Moment, step_s: float, signal_s: int, left_s: float | None) -> Outcome:
    """A signal has ended the attempt before it could save: the cluster's, after its warning, or somebody's.

    Args:
        asked: why the cluster has warned before; None: it has not.
        step_s: for how long the step under way has been so.
        signal_s: `slurm.signal_s`, how long ahead of the limit the warning comes.
        left_s: until the allocation ends; None: not known.
    """
    if asked == "timeout" and (left_s is None or left_s <= END_SLACK_S):
        advice = f"found slurm.signal_s: {signal_s}; wanted as long as a step and its checkpoint"
        number = math.ceil(max(2 * step_s, signal_s + 60.0) / 60.0) * 60
        remedy = f"set it to {number}, and slurm.time above it"
        cause = f"the time limit (slurm.time) came in {at}, which had begun {step_s:.0f} s before, and is not saved"
        return Outcome("timeout", cause=f"{cause}: {advice}: {remedy}")
    if asked is not None and asked != "timeout":
        return Outcome("preempted", cause=f"the nodes were taken in {at}, {step_s:.0f} s after it had begun; not saved")
    return Outcome("interrupted", cause="stopped by a signal")


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


def judge_records(
    folder: Path,
    seen: Sequence[Failure],
    reporter: str,
    at: Moment,
    missed: Callable[[], Sequence[Failure]] = list,
    patience_s: float = 0.0,
    in_haste: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Leader: the outcome by the first cause of all that was seen, which is left as the attempt's failure.

    Where another node has judged already, because it missed the leader, its judgement holds. Where all that is known is
    of second hand, as when a peer's connection was reset, it is not yet known who is gone: that is waited for.

    Args:
        seen: by the leader itself; all nodes among them are left out from now on.
        reporter, at: who spoke of a failure, and when, in case nobody left a record.
        missed: nodes that have fallen silent meanwhile.
        patience_s: how long it may take to miss one.
        in_haste: whether this process is being ended meanwhile, and waits no longer.
    """
    if (earlier := read_record(folder)) is not None:
        log.error("judged already, by another node: %s", earlier)
        return outcome_of(earlier)
    without_record = Failure("agent", reporter, at, "reported a failure, but left no record of it", 0)
    records = _await_records(folder) or [without_record]
    gone: list[Failure] = []

    def explained() -> bool:
        gone[:] = missed()
        found = [Failure.read(path) for path in AttemptFolder(folder).failures()]
        records.extend(failure for failure in found if failure not in records)
        return bool(gone) or in_haste() or not first_cause(records).is_second_hand

    if first_cause(records).is_second_hand:
        log.warning("of second hand, so who is gone will show: %s", first_cause(records))
        wait_until(explained, patience_s, LOOK_S)
    leave_records(folder, gone, leads=True)
    return blame(folder, first_cause([*records, *gone]), [*seen, *gone])


def blame(folder: Path, first: Failure, seen: Sequence[Failure]) -> Outcome:
    """The outcome by this failure, which is left as the attempt's; all nodes among `seen` are left out from now on."""
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
