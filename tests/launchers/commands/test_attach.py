from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from launchers.attempts.job_record import JobRecord
from launchers.commands.attach import attach_command
from tests.support.histories import BEGAN, write_history
from tests.support.waiting import COMMAND_S

RUN_FILE = """
model: {path: m}
data: {path: d}
rollout: {num_rollout: 1, rollout_batch_size: 1}
train: {global_batch_size: 8}
placement: {num_nodes: 2}
"""
SQUEUE = "#!/bin/sh\necho '7|RUNNING|None|n[1-2]|1800000000|1800009999|1:00:00|0|0|'\n"
SRUN = '#!/bin/sh\nprintf "%s\\n" "$@"\n'


def test_the_words_for_srun() -> None:
    words = attach_command("7", "n2", 1, ["bash", "-l"], terminal=True)
    assert words[:4] == ["srun", "--overlap", "--jobid=7", "--het-group=1"]
    assert words[-3:] == ["--pty", "bash", "-l"]
    assert "--pty" not in attach_command("7", "n2", None, ["nvidia-smi"], terminal=False)


def run(tmp_path: Path, *words: str, squeue: str = SQUEUE) -> subprocess.CompletedProcess[str]:
    """The command with stand-ins for squeue and srun."""
    directory = write_history(tmp_path / "run", record=JobRecord("7", submitted=BEGAN))
    directory.run_file.write_text(RUN_FILE)
    for name, text in (("squeue", squeue), ("srun", SRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    env = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = [sys.executable, "-m", "launchers", "attach", str(tmp_path / "run"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=COMMAND_S)


def test_a_command_on_a_node_of_the_job(tmp_path: Path) -> None:
    done = run(tmp_path, "--node", "n2", "--", "nvidia-smi", "-L")
    where = ["--overlap", "--jobid=7", "--nodelist=n2", "--nodes=1", "--ntasks=1"]
    assert done.stdout.split() == [*where, "nvidia-smi", "-L"]
    assert "--nodelist=n1\n" in run(tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "squeue", "message"),
    [
        (("--node", "n3"), SQUEUE, "--node: found n3; wanted a node of the job: n1, n2"),
        ((), SQUEUE.replace("RUNNING", "PENDING"), "found a run that is pending; wanted a job that runs"),
        ((), "#!/bin/sh\necho broken >&2; exit 1\n", "squeue: found exit code 1: broken"),
    ],
)
def test_mistakes(tmp_path: Path, words: tuple[str, ...], squeue: str, message: str) -> None:
    done = run(tmp_path, *words, squeue=squeue)
    assert done.returncode != 0
    assert message in done.stderr
