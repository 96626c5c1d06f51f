"""A run on this machine, in namespaces of its own: process table, /dev/shm and /tmp are the case's alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil

from common.waiting import wait_until
from tests.stress.case import Case, Fault, Place, case_of
from tests.stress.disk import Disk
from tests.stress.judge import left_in
from tests.stress.play import play
from tests.stress.runs import write
from tests.support.tiny_runs import start_ebbtide, survivors

NAMESPACES = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
GONE_S = 20.0
PROGRAMS = {
    "agent": "launchers.node.local_agent",
    "rank": "launchers.rank.trainer",
    "engine": "ebbtide_engine_server",
    "engine child": "sglang::",
    "torchrun": "launchers.rank.torchrun",
}


class LocalWorld:
    """One run directory on a disk of its own."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.guilty: list[str] = []
        self.told = ""
        self._log = folder / "log"
        self._disk = Disk(folder / "disk.img", folder / "disk")
        self.run_dir = folder / "disk" / "out"
        self._run_file = write(folder, case.layout, case.interval, num_steps=case.num_steps)
        self._chance = random.Random(case.seed)
        self._there_before = set(left_in(Path("/tmp")))  # torch's, of this process
        self._command: subprocess.Popen[bytes] | None = None
        self._stops: list[threading.Thread] = []

    def begin(self) -> None:
        self._log.write_text("")
        known = (self.run_dir / "run.yaml").exists()
        words = ["resume", str(self.run_dir)] if known else ["run", str(self._run_file), "--run-dir", str(self.run_dir)]
        self._command = start_ebbtide(*words, log=self._log)

    def has_ended(self) -> bool:
        if self._command is None or self._command.poll() is None:
            return False
        wait_until(lambda: not self._others(), GONE_S)
        return True

    def act(self, fault: Fault) -> bool:
        assert self._command is not None
        match fault.kind:
            case "kill" | "stop":
                return self._signal(fault)
            case "interrupt":
                self._command.send_signal(signal.SIGINT)
            case "terminate":
                self._command.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                self._command.send_signal(signal.SIGTERM)
            case _:
                return disturb_disk(self._disk, fault, self.run_dir, self._chance)
        return True

    def _signal(self, fault: Fault) -> bool:
        assert self._command is not None
        if fault.target == "command":
            found = [psutil.Process(self._command.pid)]
        else:
            found = [p for p in self._others() if PROGRAMS[fault.target] in command_line(p)]
        if not found:
            return False
        victim = self._chance.choice(sorted(found, key=lambda p: p.pid))
        if fault.kind == "kill":
            victim.kill()
        else:
            stop_for(victim.pid, fault.for_s)
        return True

    def mend(self) -> None:
        self._disk.mend()

    def said(self) -> str:
        assert self._command is not None
        if self._command.poll() == -signal.SIGKILL:
            return ""
        return self._log.read_text(errors="replace")

    def left(self) -> Iterator[str]:
        if found := self._others():
            yield f"processes: {[command_line(p)[:80] for p in found]}"
        if names := sorted(os.listdir("/dev/shm")):
            yield f"/dev/shm: {names}"
        if names := sorted(set(left_in(Path("/tmp"))) - self._there_before):
            yield f"/tmp: {names}"

    def end(self) -> None:
        for process in self._others():
            process.kill()

    def close(self) -> None:
        self.end()
        self._disk.close()

    def _others(self) -> list[psutil.Process]:
        """All that run here besides this program."""
        own = {1, os.getpid(), *(p.pid for p in psutil.Process().parents())}
        if self._command is not None:
            self._command.poll()
        return survivors([p for p in psutil.process_iter() if p.pid not in own])


def disturb_disk(disk: Disk, fault: Fault, run_dir: Path, chance: random.Random) -> bool:
    """What can happen to a run's disk."""
    match fault.kind:
        case "full":
            disk.fill()
        case "unwritable":
            folders = [run_dir, *(run_dir / name for name in ("checkpoints", "steps", "attempts"))]
            there = [path for path in folders if path.exists()]
            if not there:
                return False
            disk.close_to_writers(chance.choice(there))
        case "frozen":
            disk.freeze(fault.for_s)
        case "slow":
            disk.slow_down(fault.for_s)
        case _:
            raise AssertionError(fault.kind)
    return True


def stop_for(pid: int, for_s: float) -> None:
    """SIGSTOP, and later SIGCONT."""

    def wake() -> None:
        time.sleep(for_s)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    threading.Thread(target=wake, daemon=True).start()


def command_line(process: psutil.Process) -> str:
    """As ps shows it; empty: it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def run_apart(seed: int, place: str | None, folder: Path, undisturbed: Path) -> dict[str, Any]:
    """Play a local case in namespaces; the line of its seed.

    Args:
        place: as of `case_of`.
        undisturbed: the file with the losses of the undisturbed run.
    """
    words = [str(seed), str(place), str(folder), str(undisturbed)]
    command = [*NAMESPACES, sys.executable, "-m", "tests.stress.local", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"seed": seed, "violations": [f"the program itself: {done.stdout[-500:]}{done.stderr[-1500:]}"]}
    return found


def main() -> None:
    """`python -m tests.stress.local SEED PLACE FOLDER LOSSES`, in the namespaces."""
    seed, folder, undisturbed = int(sys.argv[1]), Path(sys.argv[3]), Path(sys.argv[4])
    place = cast(Place | None, None if sys.argv[2] == "None" else sys.argv[2])
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    for command in (
        ["mount", "-t", "tmpfs", "-o", "mode=1777,size=4g", "tmpfs", "/dev/shm"],
        ["mount", "--bind", str(temporary), "/tmp"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True)
    case = case_of(seed, place)
    losses = {int(step): loss for step, loss in json.loads(undisturbed.read_text()).items()}
    world = LocalWorld(folder, case)
    try:
        print(json.dumps(play(case, world, losses)), flush=True)
    finally:
        world.close()


if __name__ == "__main__":
    main()
