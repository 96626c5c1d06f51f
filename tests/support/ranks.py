"""Starts real trainer ranks for tests. Start-up costs more than most cases, so ranks serve one test after another."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
OVER_TWO: dict[str, dict[str, dict[str, Any]]] = {  # ranks that have one model between them
    "sp2": {"placement": {"tensor_parallel": 2, "sequence_parallel": True}},
    "cp2": {"placement": {"context_parallel": 2}},
    "pp2": {"placement": {"pipeline_parallel": 2}},
}
DEADLINE_S = 900.0  # beside the long tests a rank may have a tenth of a processor


def run_ranks(
    folder: Path, world_size: int, cases: dict[str, dict[str, Any]], *, fresh: bool = False
) -> dict[str, list[Any]]:
    """Run `cases` on `world_size` processes; what every rank agrees on, by case name.

    Args:
        folder: a folder that does not exist yet, for files of these cases.
        fresh: in processes that have run nothing before.
    """
    folder.mkdir(parents=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    ranks = Ranks.of(world_size, fresh)
    try:
        outcomes = ranks.run(folder)
        return {name: _agreed(name, [outcome[name] for outcome in outcomes]) for name in cases}
    except BaseException:
        ranks.close()  # who knows what they are waiting for
        raise


class Ranks:
    """The trainer ranks of one world size; `rank_main.py` runs in each."""

    running: ClassVar[dict[int, Ranks]] = {}  # by world size

    @classmethod
    def of(cls, world_size: int, fresh: bool) -> Ranks:
        """Those that run; others where none do, or where `fresh` ones are wanted."""
        if fresh and world_size in cls.running:
            cls.running[world_size].close()
        if world_size not in cls.running:
            cls.running[world_size] = cls(world_size)
        return cls.running[world_size]

    def __init__(self, world_size: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ebbtide-test-ranks-"))
        self._world_size = world_size
        self._processes = [self._start(rank) for rank in range(world_size)]

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        size = str(self._world_size)
        sizes = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment = {**os.environ, **sizes, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, str(Path(__file__).with_name("rank_main.py")), str(self._folder / "store")]
        with self._log(rank).open("wb") as log:
            return subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )

    def _log(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.log"

    def run(self, folder: Path) -> list[dict[str, Any]]:
        """Outcomes of the cases in this folder, by rank."""
        self._all_run()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n".encode())
            process.stdin.flush()
        written = [folder / f"rank{rank}.json" for rank in range(self._world_size)]
        deadline = time.monotonic() + DEADLINE_S
        while not all(path.exists() for path in written):
            self._all_run()
            assert time.monotonic() < deadline, f"no end after {DEADLINE_S:.0f} s:\n{self._where(written)}"
            time.sleep(0.05)
        return [json.loads(path.read_text()) for path in written]

    def _all_run(self) -> None:
        for rank, process in enumerate(self._processes):
            if (code := process.poll()) is not None:
                pytest.fail(f"rank {rank} has ended with code {code}:\n{self._log(rank).read_text()[-4000:]}")

    def _where(self, written: list[Path]) -> str:
        """Where those ranks are that are not done, by faulthandler."""
        late = [rank for rank, path in enumerate(written) if not path.exists()]
        for rank in late:
            self._processes[rank].send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        return "\n".join(f"rank {rank}:\n{self._log(rank).read_text()[-6000:]}" for rank in late)

    def close(self) -> None:
        """End the processes; the next call of `run_ranks` starts others."""
        self.running.pop(self._world_size, None)
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self._folder)


@atexit.register
def _close_all() -> None:
    for ranks in list(Ranks.running.values()):
        ranks.close()


def _agreed(name: str, outcomes: list[dict[str, Any]]) -> list[Any]:
    for rank, outcome in enumerate(outcomes):
        if "error" in outcome:
            if all("error" in other for other in outcomes):
                return [outcome["error"]]
            pytest.fail(f"case {name}, rank {rank}:\n{outcome['traceback']}")
    results: list[Any] = outcomes[0]["results"]
    for rank, outcome in enumerate(outcomes):
        assert outcome["results"] == results, f"case {name}: rank {rank} and rank 0 differ"
    return results
