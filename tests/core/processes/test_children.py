from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from common.waiting import wait_until
from core.processes.children import Child, log_tail, stop_all
from core.processes.node_ranks import DriverFailed
from core.run_dir.moment import Moment
from launchers.attempts.failure import Failure, describe_exit, first_cause, from_exception
from tests.support.waiting import COMMAND_S, DEADLINE_S

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def start(code: str, log: Path) -> Child:
    return Child("test", [sys.executable, "-c", code], os.environ, log)


def test_exit_codes_and_logs(tmp_path: Path) -> None:
    child = start("print('hello'); raise SystemExit(3)", tmp_path / "log")
    assert wait_until(lambda: child.exit_code() is not None, DEADLINE_S)
    assert child.exit_code() == 3
    assert log_tail(child.log_path) == "hello"
    assert "No such file" in log_tail(tmp_path / "none")


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    child = start(STUBBORN, tmp_path / "log")
    assert wait_until(lambda: "up" in log_tail(child.log_path), DEADLINE_S)
    stop_all([child], grace_s=0.2)
    assert child.exit_code() == -signal.SIGKILL


def test_no_child_outlives_its_parent(tmp_path: Path) -> None:
    """A parent killed with SIGKILL takes its child along, though the child has a session of its own."""
    code = f"""
        import os, sys, time
        from pathlib import Path
        from core.processes.children import Child
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = Child("c", command, os.environ, Path({str(tmp_path / "log")!r}))
        print(child.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait(DEADLINE_S)
    assert wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", DEADLINE_S)


def test_adopted_orphans_are_killed_too() -> None:
    """A grandchild whose own parent has died is still found and ended by the agent."""
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    grandchild = f"""
        import subprocess, sys
        devnull = subprocess.DEVNULL
        orphan = subprocess.Popen({sleeper}, start_new_session=True, stdout=devnull, stderr=devnull)
        print(orphan.pid)
    """
    code = f"""
        import subprocess, sys
        from core.processes.children import kill_descendants
        from core.processes.die_with_parent import adopt_orphans
        adopt_orphans()
        command = [sys.executable, "-c", {textwrap.dedent(grandchild)!r}]
        pid = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        kill_descendants()
        print(pid)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    assert not psutil.pid_exists(int(done.stdout))


def test_kill_descendants_of_a_process_without_any() -> None:
    """In a process of its own: this one may have a cluster among its descendants."""
    code = "from core.processes.children import kill_descendants; kill_descendants(); print('done')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=COMMAND_S)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def failure(cause: str, exit_code: int, when: float, rank: int = 0) -> Failure:
    return Failure("trainer", str(rank), Moment("update", 1), cause, pid=1, exit_code=exit_code, time=when)


@pytest.mark.parametrize(
    ("failures", "winner"),
    [
        ([failure("RuntimeError: Connection closed by peer", 1, 1.0, 0), failure("killed", -9, 2.0, 1)], "1"),
        ([failure("RuntimeError: Connection reset by peer", 1, 1.0, 0), failure("ValueError: bad", 1, 2.0, 1)], "1"),
        ([failure(f"{DriverFailed.__name__}: gave up", 1, 1.0, 1), failure("WeightsRefused: w", 1, 2.0, 0)], "0"),
        ([failure("stopped", -15, 1.0, 0), failure("RuntimeError: Broken pipe", 1, 2.0, 1)], "1"),
        ([failure("ValueError: later", 1, 2.0, 0), failure("ValueError: earlier", 1, 1.0, 1)], "1"),
    ],
    ids=[
        "killed before second hand",
        "own error before second hand",
        "the driver's own error before what it told the others",
        "stopped by us is last",
        "earliest of equals",
    ],
)
def test_first_cause(failures: list[Failure], winner: str) -> None:
    assert first_cause(failures).name == winner


def test_a_failure_survives_its_file_and_reads_well(tmp_path: Path) -> None:
    try:
        raise ValueError("rank 3 has no data\nsecond line")
    except ValueError as error:
        written = from_exception(error, "trainer", "3", Moment("score", 2), "/x/trainer-3.log")
    written.write(tmp_path / "deep" / "failure.json")
    assert Failure.read(tmp_path / "deep" / "failure.json") == written
    text = str(written)
    assert text.startswith(f"trainer 3 (pid {os.getpid()} on ")
    assert "failed in score of step 2: ValueError: rank 3 has no data" in text.splitlines()[0]
    assert text.endswith("log: /x/trainer-3.log")
    assert abs(written.time - time.time()) < 60


def test_a_record_has_phase_and_step_as_two_fields_and_one_text_in_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "failure.json"
    failure("killed", -9, 1.0).write(path)
    fields = json.loads(path.read_text())
    assert (fields["phase"], fields["step"]) == ("update", 1)
    del fields["step"]
    path.write_text(json.dumps(fields | {"phase": "update step=1"}))
    assert Failure.read(path) == failure("killed", -9, 1.0)
    path.write_text(json.dumps(fields | {"phase": "start"}))
    assert Failure.read(path).at == Moment()


def test_exit_codes_in_words() -> None:
    assert describe_exit(-9) == "killed by signal 9 (SIGKILL)"
    assert describe_exit(2) == "exited with code 2"
