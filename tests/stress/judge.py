"""What has to be true of every run, whatever happened to it. Returns what is not, in words."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.loop.checkpoints import MAX_SHARE, MAX_WRITING
from launchers.attempts.history import Attempt
from launchers.node.temporary import ALIVE
from tests.stress.case import Case, Fault
from tests.support.slurm_runs import attempts, losses

# by kind of fault, and by target where there is one: how an attempt may end by it; complete always may be
ENDS: dict[str, dict[str, str]] = {
    "kill engine": {},
    "kill engine child": {},
    "kill rewards": {},
    "kill rank": {"failed": r"trainer \d.*killed by signal 9", "node_failure": r"trainer \d.*killed by signal 9"},
    "kill torchrun": {"failed": r"torchrun.*signal 9", "node_failure": r"torchrun.*signal 9"},
    "kill agent": {"failed": "agent", "lost": "nobody was left|agent", "node_failure": "not heard of"},
    "kill command": {"lost": "nobody was left", "failed": "the node agent died"},
    "stop": {"node_failure": "not heard of for"},
    "interrupt": {"interrupted": "stopped|signal|terminal"},
    "terminate": {"interrupted": "stopped|signal|terminal"},
    "full": {"failed": "No space left|MiB free"},
    "unwritable": {"failed": "Operation not permitted|Permission denied"},
    "frozen": {},
    "slow": {},
    "scancel": {"interrupted": "stopped"},
    "cancel": {"interrupted": "stopped"},
    "save and end": {"interrupted": "stopped"},
    "requeue": {"interrupted": "stopped", "lost": "nobody was left", "preempted": ""},
    "warn": {"preempted": "preempt|warning"},
    "controller": {"lost": "nobody was left"},  # it comes back with an older state, and starts the job twice
    "lose": {"node_failure": "not heard of", "lost": "nobody was left"},  # lost: a job of one node
    "shorter": {"timeout": "time limit|saved and left|warning"},
    "longer": {},
}
REMEDY = re.compile(r"ebbtide (resume|submit --resume)|log:|wanted|set it to|raise slurm\.")
KEPT = (".lock", ".metadata", ".submission_file_")  # torch's in every checkpoint, Submitit's link to a script
MADE_WHILE_AT_WORK = ("key", "canary", "waits", "reserve")


def ends_of(fault: Fault) -> Mapping[str, str]:
    """How an attempt may end by a fault, besides complete: how -> what its cause says."""
    return ENDS.get(fault.kind) or ENDS.get(f"{fault.kind} {fault.target}") or {}


def judge_ledger(case: Case, run_dir: Path, guilty: Sequence[str]) -> Iterator[str]:
    """Each attempt's end and its true cause, and who is left out by it.

    Args:
        guilty: the nodes that something was done to.
    """
    found = attempts(run_dir)
    if not found:
        yield "the ledger has no attempt"
    for attempt in found:
        begun = (run_dir / "attempts" / str(attempt.number) / "trainer-0.log").exists()
        yield from _judge_end(case, attempt, last=attempt is found[-1], begun=begun)
        kinds = {fault.kind for _, fault in case.faults}
        if attempt.how == "lost" and len(attempt.nodes) > 1 and "lose" in kinds and "controller" not in kinds:
            yield f"attempt {attempt.number} is lost, though a node was left to say so"
        innocent = set(attempt.failed_nodes) - set(guilty)
        if innocent:
            yield f"attempt {attempt.number} leaves out {sorted(innocent)}, who did nothing; its cause: {attempt.cause}"
    if found and found[-1].how != "complete":
        yield f"the last attempt is {found[-1].how}: {found[-1].cause}"


def _judge_end(case: Case, attempt: Attempt, last: bool, begun: bool) -> Iterator[str]:
    allowed = {how: words for _, fault in case.faults for how, words in ends_of(fault).items()}
    if not begun and any(fault.kind == "lose" for _, fault in case.faults) and attempt.how == "interrupted":
        return  # Slurm ended the others before that node's agent had said a word: there is nobody to name
    if attempt.how is None:
        yield f"attempt {attempt.number} has no end in the ledger"
    elif attempt.how == "complete":
        if not last:
            yield f"attempt {attempt.number} is complete, and another one follows"
    elif attempt.how not in allowed:
        yield f"attempt {attempt.number} ended as {attempt.how} ({attempt.cause}); expected {sorted(allowed) or 'none'}"
    else:
        words = "|".join(ends[attempt.how] for _, fault in case.faults if attempt.how in (ends := ends_of(fault)))
        if not re.search(words, attempt.cause or ""):
            yield f"attempt {attempt.number} ended as {attempt.how} by {attempt.cause!r}; expected {words!r}"


def judge_losses(run_dir: Path, undisturbed: Mapping[int, float]) -> Iterator[str]:
    """Bit for bit."""
    found = losses(run_dir)
    if found != undisturbed:
        wrong = {step: (found.get(step), loss) for step, loss in undisturbed.items() if found.get(step) != loss}
        yield f"losses differ: {wrong or sorted(found)}"


class End(NamedTuple):
    """An end of an attempt that was not the last."""

    fault: str  # the latest one before it
    complete: int  # steps of the run that were complete
    lost: int  # how many of these no checkpoint holds
    span_s: float  # from the end of the first of these to that of the last
    save_s: float  # what the slowest save so far was waited for
    write_s: float = 0.0  # what it took to be on the disk


def judge_lost(case: Case, ends: Sequence[End]) -> Iterator[str]:
    """Complete steps that no checkpoint held when a run with default checkpoints ended.

    None by Ctrl-C. By a kill -9 those of the time in which no save was due, and one whose save was under way.
    """
    if case.interval is None:
        for end in ends:
            if not end.fault.startswith("kill") and end.lost:
                yield f"{end.fault} lost {end.lost} steps; expected none"
            elif end.lost > 1 and end.span_s > max(end.save_s / MAX_SHARE, end.write_s / MAX_WRITING):
                took = f"{end.save_s:.2f} s and {end.write_s:.2f} s to be written"
                yield f"{end.fault} lost {end.lost} steps of {end.span_s:.1f} s, though a save takes {took}"


def judge_files(run_dir: Path) -> Iterator[str]:
    """What an attempt makes for its time only, unfinished files, and the lock."""
    for attempt in sorted(run_dir.glob("attempts/[0-9]*")):
        left = [name for name in MADE_WHILE_AT_WORK if (attempt / name).exists()]
        if left:
            yield f"left in attempts/{attempt.name}: {left}"
    unfinished = [str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if _is_unfinished(path)]
    if unfinished:
        yield f"left unfinished: {sorted(unfinished)[:8]}"
    with (run_dir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield "the lock is held"


def _is_unfinished(path: Path) -> bool:
    hidden = path.name.startswith(".") and not path.name.startswith(KEPT)
    return hidden or path.name.endswith((".before", ".tmp"))


def left_in(folder: Path, nodes: Sequence[str] | None = None) -> list[str]:
    """What is in a folder of temporary files and is not there to stay.

    Args:
        nodes: those that had time to remove it; None: all.
    """
    found = [path for path in folder.iterdir() if "ebbtide-compiled" not in path.name]
    return sorted(path.name for path in found if nodes is None or _host_of(path) in (*nodes, None))


def _host_of(folder: Path) -> str | None:
    """The node whose agent made a folder; None: it does not say."""
    alive = folder / ALIVE
    return alive.read_text() if alive.exists() else None


def judge_said(said: str, why: str) -> Iterator[str]:
    """A run that ended before it was complete says what to do, and its command dies of no error of its own."""
    if not REMEDY.search(said):
        yield f"{why}: nothing says what to do: {said[-300:]!r}"
    if "Traceback" in said and "launchers/cli.py" in said:
        yield f"{why}: the command itself failed: {said[-400:]!r}"
