"""Memory by phase, as trainer rank 0 logged it: on the host always, on its GPU where phases rearrange it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from launchers.report.phases import PHASE_ORDER

HOST = re.compile(r"phase=(\w+) step=\d+ seconds=\S+ peak_rss_gib=(\d+\.\d+)")
GPU = re.compile(r"residency=(\w+) step=\d+ seconds=\S+ used_gib=\S+->(\d+\.\d+) plan_gib=\S*\.\.(\d+\.\d+) ")
MOST_BYTES = 64 * 2**20  # of a log, from its beginning


@dataclass
class PhaseMemory:
    """GiB of one phase; None: not logged.

    Attributes:
        host: largest resident memory of the trainer's process up to its end.
        gpu: most that the GPU held when it had begun, by everybody on it.
        planned: what the memory plan has for its fullest moment.
    """

    phase: str
    host: float | None = None
    gpu: float | None = None
    planned: float | None = None


def memory_by_phase(directory: RunDirectory) -> list[PhaseMemory]:
    """The largest values over all attempts; phases that no log tells of are left out."""
    found: dict[str, PhaseMemory] = {}
    for line in _lines(directory):
        if match := HOST.search(line):
            one = found.setdefault(match[1], PhaseMemory(match[1]))
            one.host = max(one.host or 0.0, float(match[2]))
        elif match := GPU.search(line):
            one = found.setdefault(match[1], PhaseMemory(match[1]))
            one.gpu = max(one.gpu or 0.0, float(match[2])) or None
            one.planned = max(one.planned or 0.0, float(match[3])) or None
    return [found[phase] for phase in PHASE_ORDER if phase in found]


def _lines(directory: RunDirectory) -> Iterator[str]:
    for number in range(1, directory.next_attempt()):
        yield from _log_lines(AttemptFolder(directory.attempt(number)).trainer_log(0))


def _log_lines(path: Path) -> Iterable[str]:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:  # no trainer got so far
        return ()
