"""`python -m tests.stress`: cases until the time is over; a JSON line for each, and a summary."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tests.stress as package
from tests.slurm_cluster import Cluster, Settings, why_not
from tests.slurm_cluster.settings import SLURMS_KILL_WAIT_S
from tests.stress import disk
from tests.stress.case import Case, case_of
from tests.stress.disk import Disk
from tests.stress.local import run_apart
from tests.stress.on_slurm import SlurmWorld
from tests.stress.play import play
from tests.stress.runs import write
from tests.support.tiny_runs import ebbtide, losses

NODES = 4
CLUSTER_LIFETIME_S = 6 * 3600.0


def main() -> None:
    """Exit code 1: a case was not as it has to be."""
    options = parse()
    os.environ.setdefault("EBBTIDE_CACHE", str(Path(__file__).resolve().parents[2] / ".cache" / "ebbtide"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if (reason := disk.why_not(Path(options.folder))) is not None:
        raise SystemExit(reason)
    base = Path(tempfile.mkdtemp(prefix="ebbtide-stress.", dir=options.folder))
    program = Program(base, options.place, options.lock)
    end = time.monotonic() + options.minutes * 60
    seeds = iter(options.seeds) if options.seeds else iter(range(options.first, sys.maxsize))
    try:
        for seed in seeds:
            if time.monotonic() > end:
                break
            program.take(seed)
    finally:
        program.close()
    sys.exit(1 if program.failed else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=package.__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="no case is begun after this time")
    parser.add_argument("--first", type=int, default=int(time.time()) % 10**6, help="first seed")
    parser.add_argument("--seeds", type=int, nargs="*", help="these, and no others")
    parser.add_argument("--place", choices=("local", "slurm", "defaults"), help="only here")
    parser.add_argument("--lock", type=Path, help="a file that is locked while a case runs: others have their turn")
    parser.add_argument("--folder", default="/var/tmp", help="where the runs are; those with violations stay")
    return parser.parse_args()


def lost_of(line: dict[str, Any]) -> list[str]:
    """For the summary: by kind of fault, how many complete steps each end of a case has lost."""
    return [f"{end['fault'].partition(',')[0].split()[0]}: {end['lost']} steps" for end in line.get("ends", ())]


class Program:
    """The cases so far, and what they share."""

    def __init__(self, base: Path, place: Any, lock: Path | None) -> None:
        self._base, self._place, self._lock = base, place, lock
        self._undisturbed: dict[str, Path] = {}
        self._cluster: Cluster | None = None
        self._disk: Disk | None = None
        self._counts: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._began = time.monotonic()
        self.failed: list[int] = []

    def take(self, seed: int) -> None:
        """One case; its line."""
        case = case_of(seed, self._place)
        folder = self._base / str(seed)
        folder.mkdir()
        with self._turn():
            line = self._play(case, folder, self._losses_of(case))
        print(json.dumps(line), flush=True)
        self._counts.update([f"{case.place}: {fault.kind} {fault.target}".strip() for _, fault in case.faults])
        self._lost.update(lost_of(line))
        if line["violations"]:
            self.failed.append(seed)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _play(self, case: Case, folder: Path, undisturbed: Path) -> dict[str, Any]:
        if case.place != "slurm":
            return run_apart(case.seed, self._place, folder, undisturbed)
        world = SlurmWorld(*self._running_cluster(), folder, case)
        try:
            known = {int(step): loss for step, loss in json.loads(undisturbed.read_text()).items()}
            line = play(case, world, known)
            if line["violations"]:
                shutil.copytree(world.run_dir, folder / "out", symlinks=True, dirs_exist_ok=True)
                (folder / "said").write_text(world.told)
            return line
        finally:
            world.close()

    def _losses_of(self, case: Case) -> Path:
        """The losses of the undisturbed run with the same trainers, in a file."""
        layout = case.layout
        name = f"{layout.losses}-{case.num_steps}"
        if name not in self._undisturbed:
            folder = self._base / f"undisturbed-{name}"
            alone = type(layout)(
                "alone", trainers=layout.trainers * layout.nodes, tensor_parallel=layout.tensor_parallel
            )
            done = ebbtide(
                "run", str(write(folder, alone, 1, num_steps=case.num_steps)), "--run-dir", str(folder / "out")
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "losses.json").write_text(json.dumps(losses(folder / "out")))
            self._undisturbed[name] = folder / "losses.json"
        return self._undisturbed[name]

    def _running_cluster(self) -> tuple[Cluster, Disk]:
        if self._cluster is None or self._disk is None:
            if (reason := why_not()) is not None:
                raise SystemExit(reason)
            self._disk = Disk(self._base / "disk.img", self._base / "disk")
            self._cluster = Cluster.start(
                Settings(folder="", num_nodes=NODES, kill_wait_s=SLURMS_KILL_WAIT_S), os.getpid(), CLUSTER_LIFETIME_S
            )
        return self._cluster, self._disk

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """The summary."""
        if self._cluster is not None:
            self._cluster.stop()
        if self._disk is not None:
            self._disk.close()
        minutes = (time.monotonic() - self._began) / 60
        counts = dict(sorted(self._counts.items()))
        lost = dict(sorted(self._lost.items()))
        total = {
            "minutes": round(minutes, 1),
            "faults": counts,
            "lost": lost,
            "failed seeds": self.failed,
            "folder": str(self._base),
        }
        print(json.dumps({"summary": total}), flush=True)
        if not self.failed:
            shutil.rmtree(self._base, ignore_errors=True)


if __name__ == "__main__":
    main()
