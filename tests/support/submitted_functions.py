"""What tests submit: a module of its own, so that the nodes can import it."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from hpc import Allocation


def here() -> Allocation:
    found = Allocation.from_environ(os.environ)
    assert found is not None
    return found


def place_of(allocation: Allocation) -> tuple[int, int]:
    """Component of this task, and its number among the tasks there: Slurm numbers the tasks through."""
    places = [(component, index) for component, size in enumerate(allocation.tasks) for index in range(size)]
    assert allocation.procid is not None
    return places[allocation.procid]


def who(greeting: str) -> dict[str, Any]:
    """Who this task is, as Slurm, we and submitit see it."""
    allocation, environment = here(), submitit.JobEnvironment()
    print(f"{greeting} from task {allocation.procid}")
    print(f"warning from task {allocation.procid}", file=sys.stderr)
    return {
        "host": socket.gethostname(),
        "procid": allocation.procid,
        "place": place_of(allocation),
        "nodes": allocation.nodes,
        "job_id": allocation.job_id,
        "rank": environment.global_rank,
        "num_tasks": environment.num_tasks,
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def add(a: int, b: int) -> int:
    return a + b


def fail_on(task: int) -> str:
    """One task raises; the others would go on for minutes."""
    if here().procid == task:
        raise ArithmeticError(f"task {task} cannot go on")
    time.sleep(300)
    return "not reached"


def vanish_on(task: int) -> str:
    """One task ends without a word."""
    if here().procid == task:
        os._exit(3)
    time.sleep(300)
    return "not reached"


def linger(mark: Path) -> None:
    """Says that it runs, and does not end by itself."""
    (mark / f"{here().procid}").write_text(str(os.getpid()))
    time.sleep(300)


class Counting:
    """Counts to `steps`, slowly, from where the start before has got to."""

    def __init__(self, steps: int, folder: Path) -> None:
        self.steps, self.folder, self.step = steps, folder, 0

    def __call__(self) -> tuple[int, int, int]:
        began = self.step
        while self.step < self.steps:
            self.step += 1
            (self.folder / f"step-{here().procid}").write_text(str(self.step))
            if here().restart_count == 0 and self.step > 2:
                time.sleep(300)  # until interrupted
        return began, self.step, here().restart_count

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(self)


def first_start_returns(mark: Path) -> int:
    """Task 0 goes on in the first start; the others return at once, in every start."""
    allocation = here()
    if allocation.procid == 0 and allocation.restart_count == 0:
        mark.write_text("")
        time.sleep(300)
    return allocation.restart_count


def leave_verdict() -> tuple[int, str]:
    """The first start is unfinished and leaves its last node out of the next one; the second is finished."""
    allocation, folder = here(), Path(os.environ["EBBTIDE_SLURM_DIR"])
    if allocation.procid == 0:
        last = allocation.nodes[-1]
        if allocation.restart_count == 0:
            (Path(os.environ["EBBTIDE_RUN_DIR"]) / "left-out").write_text(last)
        (folder / "verdict").write_text("end\n" if allocation.restart_count else f"requeue\n{last}\n")
    return allocation.restart_count, socket.gethostname()
