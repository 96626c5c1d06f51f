from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from launchers.attempts.job_record import JobRecord
from tests.support.command_stand_ins import calls, ebbtide_with, stand_in
from tests.support.histories import began, ended, write_history
from tests.support.waiting import DEADLINE_S


def cancel(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return ebbtide_with(folder / "bin", "cancel", str(folder / "run"), *words, cwd=folder)


def test_a_run_on_this_machine_is_stopped_in_order(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"])
    entry = {**began(1, job=None, host=socket.gethostname(), pid=process.pid), "began": time.time() + 1}
    write_history(tmp_path / "run", [entry])
    done = cancel(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"process {process.pid}: ended" in done.stdout
    assert process.wait(DEADLINE_S) == -signal.SIGTERM


def test_a_run_elsewhere_or_at_its_end_is_not_ours_to_stop(tmp_path: Path) -> None:
    write_history(tmp_path / "run", [began(1, job=None, host="far-away")])
    assert "nothing that runs here (it began on far-away); nothing to cancel" in cancel(tmp_path).stderr
    write_history(tmp_path / "run", [began(1, job=None), ended(1, "complete")])
    assert "nothing that runs here; nothing to cancel" in cancel(tmp_path).stderr


def test_all_jobs_of_a_chain_are_cancelled(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "scancel", "")
    stand_in(tmp_path / "bin", "squeue", "")
    stand_in(tmp_path / "bin", "sacct", "")
    write_history(tmp_path / "run", record=JobRecord("7", chain=("7", "8")))
    done = cancel(tmp_path)
    assert "job 7, 8: ended" in done.stdout
    assert "scancel 7 8" in calls(tmp_path / "bin")


def test_a_job_that_does_not_go_away(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "scancel", "")
    stand_in(tmp_path / "bin", "squeue", "echo '7|COMPLETING|None|n1|1|2|1:00|0|0|'")
    write_history(tmp_path / "run", record=JobRecord("7"))
    done = cancel(tmp_path, "--timeout-s", "1")
    assert done.returncode == 1
    assert "found jobs alive after 1 s: 7 is COMPLETING; wanted ended ones: look again with squeue" in done.stderr


def test_slurm_refuses(tmp_path: Path) -> None:
    refusal = "scancel: error: Kill job error on job id 7: Access/permission denied"
    stand_in(tmp_path / "bin", "scancel", f"echo '{refusal}' >&2; exit 1")
    write_history(tmp_path / "run", record=JobRecord("7"))
    done = cancel(tmp_path)
    assert done.returncode == 1
    assert "the job is not yours" in done.stderr
