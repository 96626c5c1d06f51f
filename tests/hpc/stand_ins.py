"""Programs that stand in for srun, scontrol and sleep, so that a job script runs without Slurm.

The stand-ins write what they were asked to `calls`, one JSON list a line.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECORD = 'import json, os, sys; open(os.environ["CALLS"], "a").write(json.dumps(sys.argv[1:]) + "\\n")'
SRUN = """\
#!{python}
import os, subprocess, sys
{record}
if os.environ.get("SRUN_CODE"):
    print("srun: error: Unable to create step", file=sys.stderr)
    sys.exit(int(os.environ["SRUN_CODE"]))
parts, codes = [[]], []
for word in sys.argv[1:]:
    parts.append([]) if word == ":" else parts[-1].append(word)
for procid in range(int(os.environ.get("NUM_TASKS", len(parts)))):
    command = parts[min(procid, len(parts) - 1)]
    command = command[next(i for i, word in enumerate(command) if not word.startswith("-")):]
    codes.append(subprocess.run(command, env={{**os.environ, "SLURM_PROCID": str(procid)}}).returncode)
sys.exit(max(codes))
"""
SCONTROL = """\
#!{python}
import os, signal, sys
{record}
if sys.argv[1] == "show":
    print(os.environ.get("JOB_FACTS", ""))
    sys.exit(int(os.environ.get("SHOW_CODE", "0")))
code = int(os.environ.get(sys.argv[1].upper() + "_CODE", "0"))
if sys.argv[1] == "requeue" and code == 0:
    os.killpg(0, signal.SIGTERM)  # as Slurm does to all processes of the job, this one too
sys.exit(code)
"""
SLEEP = """\
#!{python}
import sys
{record}
"""
MODULE = """\
#!{python}
{record}
"""
FACTS = (
    "JobId=70 HetJobId=70 JobState=RUNNING Reason=None Restarts=0 StartTime=2026-01-02T03:00:00 "
    "EndTime=2026-01-02T04:00:00 Deadline=N/A \n"
    "JobId=71 HetJobId=70 JobState=RUNNING Reason=None Restarts=0 EndTime=2026-01-02T04:00:00 Deadline=N/A "
)


@dataclass(frozen=True)
class Outcome:
    """What a script did: its exit code, its output, and every call of a stand-in."""

    code: int
    output: str
    calls: list[list[str]]

    def named(self, program: str, verb: str = "") -> list[list[str]]:
        """The arguments of the calls of `program`, with the first argument `verb` if given."""
        found = [call[1:] for call in self.calls if call[0] == program]
        return [call for call in found if not verb or call[0] == verb]


def run_script(text: str, folder: Path, **environment: str) -> Outcome:
    """Runs the script `text` as Slurm would, with stand-ins first on the PATH."""
    programs = folder / "stand ins"
    programs.mkdir(parents=True, exist_ok=True)
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL), ("sleep", SLEEP), ("module", MODULE)):
        record = RECORD.replace("sys.argv[1:]", f"[{name!r}, *sys.argv[1:]]")
        _executable(programs / name, program.format(python=sys.executable, record=record))
    script = folder / "script.sbatch"
    _executable(script, text)
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", str(script)],
        env={**_environment(programs, calls), **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    return Outcome(done.returncode, done.stdout, [json.loads(line) for line in lines])


def _environment(programs: Path, calls: Path) -> Mapping[str, str]:
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "HOME": str(programs),
        "TZ": "UTC",
        "JOB_FACTS": FACTS,
        "SLURM_JOB_ID": "70",
        "SLURM_JOB_ID_HET_GROUP_0": "70",
        "SLURM_JOB_ID_HET_GROUP_1": "71",
        "SLURM_ARRAY_TASK_ID": "2",
    }


def _executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
