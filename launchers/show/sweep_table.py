"""A sweep: one run directory per point of a grid, one job array over them, one table of how they fared.

SWEEP_DIR/sweep.json    the grid, the points and the array's job id
SWEEP_DIR/000/ …        run directories
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from common.files import write_atomically
from core.run_dir.run_directory import RunDirectory
from launchers.show.plain_text import visible
from launchers.show.run_status import Status
from launchers.show.status_table import number, steps

FILE = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """What a sweep consists of; point i is run in the folder `folders[i]` of the sweep's directory."""

    name: str
    points: tuple[dict[str, str], ...]
    job_id: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """000, 001, …"""
        width = max(3, len(str(len(self.points) - 1)))
        return tuple(f"{index:0{width}}" for index in range(len(self.points)))

    def directories(self, path: Path) -> list[RunDirectory]:
        """The run directories of a sweep at `path`."""
        return [RunDirectory(path / folder) for folder in self.folders]

    def write(self, path: Path) -> None:
        """Write sweep.json atomically."""
        write_atomically(path / FILE, json.dumps(asdict(self), indent=1))


def read_sweep(path: Path) -> Sweep | None:
    """The sweep at `path`; None if it is none."""
    file = path / FILE
    if not file.exists():
        return None
    fields = json.loads(file.read_text())
    return Sweep(fields["name"], tuple(fields["points"]), fields["job_id"])


def table(sweep: Sweep, statuses: Sequence[Status]) -> Table:
    """One line per point: its settings, its state and its rewards."""
    keys = list(sweep.points[0]) if sweep.points else []
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("run", *keys, "state", "step", "reward", "best", "step time", "reason"):
        shown.add_column(heading, justify="right" if heading in ("reward", "best", "step time") else "left")
    for folder, point, status in zip(sweep.folders, sweep.points, statuses, strict=True):
        advance = status.advance
        best = max(advance.rewards.values(), default=None)
        settings = [Text(visible(point[key])) for key in keys]
        figures = (number(advance.reward, ".3f"), number(best, ".3f"), number(advance.step_time_s, ".1f", " s"))
        shown.add_row(
            folder, *settings, status.state, steps(status), *figures, Text(visible(status.reason.partition("\n")[0]))
        )
    return shown
