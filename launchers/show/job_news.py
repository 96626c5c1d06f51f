"""What `ebbtide submit --wait` tells of a job while it waits, starts, stops and starts again. Pure."""

from __future__ import annotations

from launchers.attempts.history import Attempt
from launchers.show.run_state import RunState
from launchers.show.run_status import Status

SHOWN_NODES = 4


def news(status: Status) -> str:
    """One line about a run's state; it changes when there is something to tell."""
    last, job = status.history.last, f"job {status.job_id}"
    match status.state:
        case RunState.PENDING:
            return f"{job} waits in the queue{_because(status.reason)}"
        case RunState.BETWEEN_ATTEMPTS:
            return f"{_ended(last)}; {job} waits to go on{_because(status.reason)}"
        case RunState.STARTING:
            return f"{job} starts on {nodes(status)}"
        case RunState.RUNNING if last is not None:
            return f"attempt {last.number} runs on {nodes(status)}"
        case RunState.STOPPING:
            return f"{_ended(last)}; {job} stops" if last is not None and last.how else f"{job} stops"
        case RunState.UNKNOWN:
            return f"Slurm does not answer{_because(status.reason)}"
        case _:
            return f"{job}: {status.state}{_because(status.reason)}"


def nodes(status: Status) -> str:
    """The first nodes, and how many more."""
    shown = ", ".join(status.nodes[:SHOWN_NODES])
    more = len(status.nodes) - SHOWN_NODES
    return f"{shown} and {more} more" if more > 0 else shown or "nodes that Slurm has not named yet"


def _because(reason: str) -> str:
    return f" ({reason.partition(chr(10))[0]})" if reason else ""


def _ended(last: Attempt | None) -> str:
    if last is None or last.how is None:
        return "the attempt ended without a word"
    steps = "" if last.steps_done is None else f" after {last.steps_done} steps"
    excluded = f", without {', '.join(last.failed_nodes)} from now on" if last.failed_nodes else ""
    return f"attempt {last.number} ended by {last.how.replace('_', ' ')}{steps}{excluded}"
