"""What a sandbox gives its caller: outcomes, limits of one's own, and an end whatever happens to the caller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.rollout.limits import TimeIsUp
from core.sandbox.sandbox import Ran, Sandbox, run_python
from core.sandbox.ways import SYSTEM
from tests.core.sandbox.test_hostile_programs import GONE_S, VARIABLE, processes_with

LONG_S = 60.0
WAITS = "import time\nprint('begun', flush=True)\ntime.sleep(50)"


def test_a_program_reads_and_prints() -> None:
    ran = run_python("print(input()[::-1])\nimport sys\nprint('!', file=sys.stderr)", "abc\n", LONG_S)
    assert ran == Ran("cba\n", "!\n", 0, "", ran.seconds)
    assert ran.ok
    assert 0 < ran.seconds < LONG_S


def test_text_and_bytes_come_back_as_they_were() -> None:
    code = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    text = "ä€😀\0\r\n" * 50_000
    assert Sandbox(timeout_s=LONG_S).run(code, text).stdout == text
    assert Sandbox(timeout_s=LONG_S).run(code, b"a\xffb").stdout == "a\ufffdb"
    assert Sandbox(timeout_s=LONG_S).run(code, "\ud800").stdout == "\ufffd\ufffd\ufffd"


def test_each_input_meets_a_clean_start() -> None:
    code = "import os\nprint(os.listdir('/tmp'), input())\nopen('/tmp/left', 'w').close()\nos.fork()"
    outcomes = list(Sandbox(timeout_s=LONG_S).run_all(code, ["a", "b", "c"]))
    assert [ran.stdout.splitlines()[0] for ran in outcomes] == [f"['program.py'] {name}" for name in "abc"]


def test_no_more_is_run_than_is_asked_for() -> None:
    asked = []

    def inputs():
        for name in "abc":
            asked.append(name)
            yield name

    runs = Sandbox(timeout_s=LONG_S).run_all("print(input())", inputs())
    assert next(runs).stdout == "a\n"
    runs.close()
    assert asked == ["a"]


def test_a_limit_for_all_inputs_together() -> None:
    outcomes = list(Sandbox(timeout_s=LONG_S).run_all("import time\ntime.sleep(2)", ["", "", ""], within_s=1.0))
    assert [ran.stopped for ran in outcomes] == ["time"] * 3
    assert outcomes[-1].seconds < 2


def test_the_same_program_does_the_same() -> None:
    code = "print({str(n) for n in range(100)}, hash('x'))"
    assert len({ran.stdout for ran in Sandbox(timeout_s=LONG_S).run_all(code, [""] * 3)}) == 1


def test_variables_and_files_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("7")
    (tmp_path / "hidden").write_text("8")
    code = f"import os\nprint(os.environ['A'], open('{tmp_path}/table').read(), os.listdir('{tmp_path}'))"
    sandbox = Sandbox(timeout_s=LONG_S, environment={"A": "b"}, visible=(f"{tmp_path}/table",))
    (tmp_path / "table").chmod(0o644)  # root is nobody within
    assert [ran.stdout for ran in sandbox.run_all(code, ["", ""])] == ["b 7 ['table']\n"] * 2


def test_files_that_links_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is there under the name that it was given by, and an interpreter in a folder that is a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "table").write_text("7")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    sandbox = Sandbox(timeout_s=LONG_S, visible=(f"{tmp_path}/link/table",))
    assert sandbox.run(f"print(open('{tmp_path}/link/table').read())").stdout == "7\n"
    (tmp_path / "python").symlink_to(sys.base_prefix)
    monkeypatch.setattr(sys, "base_prefix", f"{tmp_path}/python")
    assert Sandbox(timeout_s=LONG_S).run("import sys, json\nprint(sys.base_prefix)").ok


def test_packages_of_the_environment() -> None:
    code = "import yaml\nprint(yaml.safe_load('[1, 2]'))"
    assert "ModuleNotFoundError" in Sandbox(timeout_s=LONG_S).run(code).stderr
    assert Sandbox(timeout_s=LONG_S, packages=True).run(code).stdout == "[1, 2]\n"


def test_what_programs_need_works() -> None:
    """Threads, processes, pools, sockets in pairs, temporary files, event loops."""
    code = """
import asyncio, concurrent.futures, multiprocessing, socket, subprocess, sys, tempfile
def twice(n): return 2 * n
if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(4) as pool: print(list(pool.map(twice, range(3))))
    with multiprocessing.Pool(2) as pool: print(pool.map(twice, range(3)))
    print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout)
    with tempfile.NamedTemporaryFile() as file: print(file.write(b"x"))
    one, other = socket.socketpair()
    one.send(b"y"); print(other.recv(1))
    print(asyncio.run(asyncio.sleep(0, 5)))
    import getpass, os, sqlite3, ssl, zoneinfo
    print(getpass.getuser(), os.cpu_count() > 0)
"""
    ran = Sandbox(timeout_s=LONG_S).run(code)
    assert ran.stdout == "[0, 2, 4]\n[0, 2, 4]\n1\n\n1\nb'y'\n5\nsandbox True\n", ran


def test_the_tree_has_nothing_else(tmp_path: Path) -> None:
    """What is mounted, and that all but /tmp is read-only; what is beside the mounts."""
    code = """
import json, os, sys
lines = [line.split() for line in open("/proc/self/mountinfo")]
mounts = {line[4]: line[5].split(",") for line in lines}
beside = {path: os.listdir(path) for path in ("/", "/etc", "/dev", "/tmp")}
print(json.dumps([mounts, beside, sys.base_prefix]))
"""
    mounts, beside, prefix = json.loads(Sandbox(timeout_s=LONG_S).run(code).stdout)
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    system = {path for path in mounts if any(path == one or path.startswith(f"{one}/") for one in (*SYSTEM, prefix))}
    assert set(mounts) - system == {"/", "/tmp", "/proc"} | devices
    writable = {path for path, options in mounts.items() if "ro" not in options}
    assert writable <= {"/tmp", "/proc"} | devices
    assert {path for path, options in mounts.items() if "nosuid" not in options} <= devices
    tops = {path.split("/")[1] for path in (*SYSTEM, prefix)}
    assert set(beside["/"]) <= {"tmp", "proc", "dev", *tops}
    assert set(beside["/etc"]) <= {"passwd", "group", "hosts", "alternatives", "ld.so.cache", "localtime"}
    assert beside["/tmp"] == ["program.py"]


def test_several_at_a_time() -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda n: Sandbox(timeout_s=LONG_S).run("print(input())", str(n)), range(8)))
    assert [ran.stdout for ran in outcomes] == [f"{n}\n" for n in range(8)]


def test_an_interrupted_caller_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the alarm of a tool's time limit interrupts it."""

    def ring(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        Sandbox().run("pass")  # the way is found once
        signal.setitimer(signal.ITIMER_REAL, 2.0)
        with pytest.raises(TimeIsUp):
            Sandbox(timeout_s=LONG_S, environment={VARIABLE: "interrupted-caller"}).run(WAITS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wait_until(lambda: not processes_with("interrupted-caller"), GONE_S)


@pytest.mark.parametrize("thread", [False, True], ids=["main", "thread"])
def test_a_killed_caller_takes_the_program_along(thread: bool) -> None:
    mark = f"killed-caller-{os.getpid()}-{thread}"
    call = f"Sandbox(timeout_s=50, environment={{{VARIABLE!r}: {mark!r}}}).run({WAITS!r})"
    code = f"import threading\nfrom ebbtide import Sandbox\nthreading.Thread(target=lambda: {call}).start()"
    code = code if thread else f"from ebbtide import Sandbox\n{call}"
    caller = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert wait_until(lambda: bool(processes_with(mark)), GONE_S)
    finally:
        caller.kill()
        caller.wait()
    assert wait_until(lambda: not processes_with(mark), GONE_S)


def test_a_thread_that_ends_leaves_the_sandbox_of_another() -> None:
    """Nothing of it hangs on the thread that found the way, or on one that has ended."""
    outcomes: list[Ran] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: outcomes.append(run_python("print(1)", timeout_s=LONG_S)))
        thread.start()
        thread.join()
    assert [ran.stdout for ran in outcomes] == ["1\n", "1\n"]


def test_descriptors_are_given_back() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    run_python("pass", timeout_s=LONG_S)
    before = descriptors()
    for _ in range(3):
        run_python("pass", timeout_s=LONG_S)
    assert descriptors() == before


def test_times_are_by_the_clock() -> None:
    begun = time.monotonic()
    ran = run_python("import time\ntime.sleep(30)", timeout_s=0.5)
    assert (ran.stopped, ran.exit_code) == ("time", None)
    assert 0.5 <= ran.seconds <= time.monotonic() - begun
