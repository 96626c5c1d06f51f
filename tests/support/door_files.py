"""Files of a user, as docs/doors.md shows them, and what the checks say of a run file that names one."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from core.checks import check_run_file
from tests.support.good_run import RUN_FILE, write_run

PAGE = Path(__file__).parents[2] / "docs" / "doors.md"
SINKS = '''
import json
from pathlib import Path

from ebbtide import RunInfo


class Lines:
    """One line per call, in a file of the run directory."""

    def __init__(self, file="lines.jsonl"):
        self.file = file

    def begin(self, run: RunInfo):
        self.path = Path(run.directory) / self.file
        self.write("begin", run.name, run.first_step, run.num_steps, run.run_file["train"]["lr"])

    def step(self, step, metrics):
        self.write("step", step, dict(metrics))

    def evaluation(self, step, results):
        self.write("evaluation", step, dict(results))

    def samples(self, step, samples):
        self.write("samples", step, [[one.group, one.index, one.reward] for one in samples])

    def end(self):
        self.write("end")

    def write(self, *what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\\n")


class Raises(Lines):
    def step(self, step, metrics):
        raise KeyError(f"no room for step {step}")
'''


def example(heading: str) -> str:
    """The Python file of a door's section."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


def write_file(folder: Path, text: str, name: str = "mine.py") -> Path:
    """A user's file, outside the package."""
    path = folder / name
    path.write_text(dedent(text))
    return path


def said_of(folder: Path, text: str, *settings: str) -> str:
    """The first mistake that the check finds, the user's file being `mine.py` beside the run file; empty: none."""
    run_file = write_run(folder, RUN_FILE)
    write_file(folder, text)
    try:
        check_run_file(run_file, settings)
    except ValueError as error:
        where, colon, said = str(error).splitlines()[1].rpartition(": found ")
        return f"{where.rpartition(' ')[2]}{colon}{said}".replace(str(folder), "DIR")
    return ""
