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

from tests.support.waiting import COMMAND_S

RECORD = 'import json, os, sys; open(os.environ["CALLS"], "a").write(json.dumps(sys.argv[1:]) + "\\n")'
SRUN = """\
#!{python}
import os, subprocess, sys, time
{record}
if os.environ.get("SRUN_CODE"):
    print("srun: error: Unable to create step", file=sys.stderr)
    sys.exit(int(os.environ["SRUN_CODE"]))
parts, tasks = [[]], []
for word in sys.argv[1:]:
    parts.append([]) if word == ":" else parts[-1].append(word)
for part in parts:  # one task for each component that the part names; without a name that is the first
    first, _, last = next((word[12:] for word in part if word.startswith("--het-group=")), "0").partition("-")
    command = part[next(i for i, word in enumerate(part) if not word.startswith("-")):]
    for component in range(int(first), int(last or first) + 1):
        environment = {{**os.environ, "SLURM_PROCID": str(len(tasks)), "COMPONENT": str(component)}}
        tasks.append((str(component), subprocess.Popen(command, env=environment)))
if os.environ.get("SIGNAL"):  # as Slurm sends it: to the tasks of these components, and to the batch shell or not
    ready, deadline = os.environ["READY"], time.monotonic() + 30
    while len(os.listdir(ready)) < len(tasks) and time.monotonic() < deadline:
        time.sleep(0.01)
    if os.environ.get("SIGNAL_SHELL"):
        os.kill(os.getppid(), int(os.environ["SIGNAL"]))
    for component, task in tasks:
        if component in os.environ["SIGNALLED"].split():
            task.send_signal(int(os.environ["SIGNAL"]))
codes = [task.wait() for _, task in tasks]
codes = [128 - code if code < 0 else code for code in codes]
sys.exit(max(codes))
"""
SCONTROL = """\
#!{python}
import os, signal, sys
{record}
if sys.argv[1:3] == ["show", "hostnames"]:
    print(sys.argv[3].replace(",", "\\n"))
    sys.exit()
if sys.argv[1] == "show":
    print(os.environ.get("JOB_FACTS", ""))
    sys.exit(int(os.environ.get("SHOW_CODE", "0")))
code = int(os.environ.get(sys.argv[1].upper() + "_CODE", "0"))
if sys.argv[1] == "requeue" and code == 0:
    os.killpg(0, signal.SIGTERM)  # as Slurm does to all processes of the job, this one too
sys.exit(code)
"""
SINFO = """\
#!{python}
import os
{record}
print(os.environ.get("NODES", ""), end="")
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
    for name, program in (
        ("srun", SRUN),
        ("scontrol", SCONTROL),
        ("sinfo", SINFO),
        ("sleep", SLEEP),
        ("module", MODULE),
    ):
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
        timeout=COMMAND_S,
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
        "SLURM_JOB_ID_HET_GROUP_2": "72",
        "SLURM_ARRAY_TASK_ID": "2",
    }


def _executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
