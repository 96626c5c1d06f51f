"""What has become of jobs: one squeue for all of them, one sacct for those that squeue has forgotten."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from hpc.slurm.commands import SlurmError, run_command
from hpc.slurm.job_state import (
    GONE,
    UNKNOWN,
    JobState,
    fold,
    read_exit_code,
    read_nodes,
    read_reason,
    read_state,
    read_time,
    read_time_limit,
    read_wait_status,
)

SQUEUE_FIELDS = (
    "JobArrayID:60|,State:30|,Reason:200|,NodeList:2000|,StartTime:30|,EndTime:30|,TimeLimit:30|,RestartCnt:12|,"
    "exit_code:12|"
)
SACCT_FIELDS = "JobID,State,Reason,NodeList,Start,End,TimelimitRaw,ExitCode"
JOB_ID = re.compile(r"\d+(_\d+)?")
SHORTEST_INTERVAL_S = 10.0

Rows = dict[str, list[JobState]]  # by asked job id; component by component, element by element


def job_states(job_ids: Iterable[str], timeout_s: float = 30.0) -> dict[str, JobState]:
    """The state of each job, by id: of the leader for heterogeneous jobs, `7_3` for an array's element, `7` for all.

    A job that neither squeue nor sacct knows has ended: `GONE`. Clusters without accounting forget a job some minutes
    after its end (MinJobAge).

    Raises:
        SlurmError: squeue failed. A failing sacct is no error.
        ValueError: an id is none.
    """
    asked = tuple(dict.fromkeys(job_ids))
    if wrong := [job_id for job_id in asked if not JOB_ID.fullmatch(job_id)]:
        raise ValueError(f"found {', '.join(map(repr, wrong))}, wanted job ids such as 1234 or 1234_5")
    if not asked:
        return {}
    states = {job_id: fold(rows) for job_id, rows in ask_squeue(asked, timeout_s).items()}
    if forgotten := [job_id for job_id in asked if job_id not in states]:
        states |= ended_states(forgotten, timeout_s)
    return states


def ask_squeue(job_ids: Sequence[str], timeout_s: float) -> Rows:
    """What squeue knows, ended jobs included as long as it remembers them."""
    command = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(job_ids)}", f"--Format={SQUEUE_FIELDS}"]
    try:
        listed = run_command(command, timeout_s, {"SLURM_TIME_FORMAT": "%s"})
    except SlurmError as error:
        if "Invalid job id specified" in error.output:  # said only when it knows none of them
            return {}
        raise
    return read_squeue(listed, job_ids)


def read_squeue(text: str, job_ids: Sequence[str]) -> Rows:
    """The rows of squeue by the asked ids."""
    rows: Rows = defaultdict(list)
    for name, state, (time_limit, restarts, wait_status) in _lines(text, 9):
        state = replace(
            state,
            time_limit_s=read_time_limit(time_limit),
            restarts=int(restarts) if restarts.isdigit() else None,
            exit_code=read_wait_status(wait_status) if state.has_ended else None,
        )
        _add(rows, name, state, job_ids)
    return rows


def ended_states(job_ids: Sequence[str], timeout_s: float) -> dict[str, JobState]:
    """States of jobs that squeue does not know: they have ended, whatever sacct says about them."""
    command = ["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={','.join(job_ids)}"]
    try:
        listed = run_command([*command, f"--format={SACCT_FIELDS}"], timeout_s, {"SLURM_TIME_FORMAT": "%s"})
    except SlurmError as error:
        said = (error.output.splitlines() or ["no message"])[-1]
        reason = f"squeue no longer knows it, and sacct does not work: {said}"
        return {job_id: JobState(GONE, reason) for job_id in job_ids}
    known = {job_id: fold(rows) for job_id, rows in read_sacct(listed, job_ids).items()}
    return {job_id: _certainly_ended(known.get(job_id)) for job_id in job_ids}


def _certainly_ended(state: JobState | None) -> JobState:
    if state is None:
        return JobState(GONE, "neither squeue nor sacct knows it")
    if state.has_ended:
        return state
    return JobState(GONE, f"squeue no longer knows it, sacct still says {state.state}", state.nodes, state.start)


def read_sacct(text: str, job_ids: Sequence[str]) -> Rows:
    """The rows of sacct by the asked ids."""
    rows: Rows = defaultdict(list)
    for name, state, (minutes, exit_code) in _lines(text, 8):
        time_limit_s = int(minutes) * 60 if minutes.isdigit() else None
        _add(rows, name, replace(state, time_limit_s=time_limit_s, exit_code=read_exit_code(exit_code)), job_ids)
    return rows


def _lines(text: str, num_cells: int) -> Iterator[tuple[str, JobState, list[str]]]:
    """Job id, what the columns say that both listings begin with, and the cells behind those, of each whole line."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= num_cells:
            name, state, reason, nodes, start, end, *rest = cells[:num_cells]
            common = JobState(
                state=read_state(state),
                reason=read_reason(reason),
                nodes=read_nodes(nodes),
                start=read_time(start),
                end=read_time(end),
            )
            yield name, common, rest


def _add(rows: Rows, name: str, state: JobState, job_ids: Sequence[str]) -> None:
    """File a row under every asked id that it belongs to: 7, 7+1 (a component), 7_3 or 7_[4-6%2] (elements)."""
    base, _, element = name.partition("_")
    base = base.partition("+")[0]
    for job_id in job_ids:
        asked_base, _, asked_element = job_id.partition("_")
        if base == asked_base and (not asked_element or _has_element(element, int(asked_element))):
            rows[job_id].append(state)


def _has_element(text: str, index: int) -> bool:
    """Whether `3`, or `[1-2,5-7:2%4]`, holds the index."""
    for part in text.strip("[]").partition("%")[0].split(","):
        bounds, _, step = part.partition(":")
        first, dash, last = bounds.partition("-")
        if first.isdigit() and index in range(int(first), int(last if dash else first) + 1, int(step or 1)):
            return True
    return False


def cancel(job_ids: Iterable[str], timeout_s: float = 60.0) -> None:
    """Ask Slurm to end jobs; heterogeneous ones by the leader's id. Ended ones are no error.

    Raises:
        SlurmError: scancel failed; a job may still run.
    """
    try:
        run_command(["scancel", *job_ids], timeout_s)
    except SlurmError as error:
        if not re.search(r"already completing or completed|Invalid job id", error.output):
            raise


class Poller:
    """States of jobs, from Slurm at most every `interval_s` seconds, whoever asks how often.

    Slurm's controller serves a whole cluster: one Poller per process, shared by all who want to know. States of jobs
    that have ended are not asked for again. When squeue fails, the last states stay and `error` says why.
    """

    def __init__(
        self,
        interval_s: float = SHORTEST_INTERVAL_S,
        ask: Callable[[Iterable[str]], dict[str, JobState]] = job_states,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_s = max(interval_s, SHORTEST_INTERVAL_S)
        self.error: str | None = None
        self.num_calls = 0
        self._ask, self._clock = ask, clock
        self._asked_at = float("-inf")
        self._states: dict[str, JobState] = {}

    def states(self, job_ids: Iterable[str], now: bool = False) -> dict[str, JobState]:
        """The last known states, `UNKNOWN` where there is none yet; `now` asks at once (after a person's command)."""
        wanted = tuple(job_ids)
        open_ids = [job_id for job_id in wanted if not self._has_ended(job_id)]
        if open_ids and (now or self._clock() - self._asked_at >= self.interval_s):
            self._update(open_ids)
        return {job_id: self.known(job_id) for job_id in wanted}

    def known(self, job_id: str) -> JobState:
        """The last known state, without asking."""
        return self._states.get(job_id, JobState(UNKNOWN, self.error))

    def forget(self) -> None:
        """Know nothing, and ask at once the next time."""
        self._states.clear()
        self._asked_at = float("-inf")

    def state(self, job_id: str, now: bool = False) -> JobState:
        """`states` of one job."""
        return self.states([job_id], now)[job_id]

    def _has_ended(self, job_id: str) -> bool:
        known = self._states.get(job_id)
        return known is not None and known.has_ended and known.state != GONE  # sacct may lag by some seconds

    def _update(self, job_ids: Sequence[str]) -> None:
        self._asked_at = self._clock()
        self.num_calls += 1
        try:
            self._states |= self._ask(job_ids)
            self.error = None
        except SlurmError as error:
            self.error = str(error)
