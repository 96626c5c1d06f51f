"""Ways into a sandbox: for root, for an ordinary user, by bubblewrap, or none with its reasons."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.sandbox import filter as calls
from core.sandbox import sandbox, ways
from core.sandbox.session import SandboxUnavailable
from launchers.commands.doctor import sandbox_text
from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).resolve().parents[3]
USER = "54321"
# one of each kind; all of them: EBBTIDE_TESTS=all
SOME = "kills or reads-the or fork or connect or fills or writes-to-/etc or becomes or namespaces or sleeps or memory"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root can become an ordinary user")


@needs_root
@pytest.mark.parametrize("way", [ways.NAMESPACES, ways.BUBBLEWRAP])
def test_an_ordinary_user_has_the_same_sandbox(way: str, tmp_path: Path) -> None:
    if way == ways.BUBBLEWRAP and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    tests = str(ROOT / "tests/core/sandbox/test_hostile_programs.py")
    some = ["-k", SOME] if os.environ.get("EBBTIDE_TESTS") != "all" else []
    command = [sys.executable, "-m", "tests.support.ordinary_user", USER, sys.executable, "-m", "pytest", tests]
    done = subprocess.run(
        [*command, *some, "-p", "no:randomly", "-n", "0", "--basetemp", f"/tmp/ebbtide-test-{USER}-{os.getpid()}"],
        cwd=ROOT,
        env={**os.environ, "EBBTIDE_TEST_WAY": way, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    shutil.rmtree(f"/tmp/ebbtide-test-{USER}-{os.getpid()}", ignore_errors=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 30


@needs_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare of util-linux makes the container")
def test_root_of_a_container_who_is_an_ordinary_user() -> None:
    """As in containers that know one user only, whom they call root."""
    code = (
        "import os\nfrom core.sandbox.sandbox import Sandbox, why_not\n"
        "from core.sandbox.namespaces import can_become_nobody\n"
        "print(os.geteuid(), can_become_nobody(), why_not('namespaces'))\n"
        "held = 'import os\\nfor n in range(99):\\n if os.fork() == 0: import time; time.sleep(300)'\n"
        "print(Sandbox(timeout_s=60).run(held).stderr.splitlines()[-1])"
    )
    command = [sys.executable, "-m", "tests.support.ordinary_user", USER, shutil.which("unshare"), "--map-root-user"]
    done = subprocess.run(
        [*map(str, command), sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S
    )
    wanted = ["0 False None", "BlockingIOError: [Errno 11] Resource temporarily unavailable"]
    assert done.stdout.splitlines() == wanted, done


def test_where_there_is_none_the_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda way, *_: f"{way} is refused")
    sandbox.find_way.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable) as caught:
            sandbox.run_python("print(1)")
        assert str(caught.value).startswith(
            "found no way to run strangers' programs here (namespaces: namespaces is refused; bubblewrap: bubblewrap "
            "is refused); wanted user namespaces or bubblewrap: have the administrator allow user namespaces"
        )
        assert sandbox_text().startswith("sandbox: none on this machine, which tools and rewards that run programs")
    finally:
        sandbox.find_way.cache_clear()


def test_the_doctor_says_which_way() -> None:
    assert sandbox_text() == f"sandbox: works on this machine, by {sandbox.find_way()}"


@needs_root
def test_a_kernel_that_allows_no_namespace_is_named() -> None:
    """As for root of a container that has not the right; nothing is run, and nothing hangs."""
    code = (
        # without CAP_SYS_ADMIN from the next program on
        "import ctypes, os\nctypes.CDLL(None).prctl(24, 21, 0, 0, 0)\n"
        "import sys\nos.execv(sys.executable, [sys.executable, '-c', "
        "'from core.sandbox.sandbox import why_not\\nprint(why_not(\"namespaces\"))'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.stdout == "unshare: Operation not permitted\n", done


def test_bubblewrap_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert sandbox.why_not(ways.BUBBLEWRAP) == "bwrap is not installed"


def test_an_interpreter_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "interpreter", lambda packages: ways.Interpreter("/nowhere/python", (sys.base_prefix,)))
    assert sandbox.why_not(ways.NAMESPACES) == "No such file or directory"


def test_visible_paths_are_none_within_another(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    found = ways.visible_paths([f"{tmp_path}/a", f"{tmp_path}/a/b", f"{tmp_path}/ab", f"{tmp_path}/none", "/usr/bin"])
    assert [path for path in found if path.startswith(str(tmp_path))] == [f"{tmp_path}/a", f"{tmp_path}/ab"]
    assert "/usr/bin" not in found
    assert "/usr" in found


@pytest.mark.parametrize(("release", "counts"), [("5.14.0-1.el9", False), ("6.8.0", False), ("4.18.0-513.el8", True)])
def test_old_kernels_count_a_users_other_threads(release: str, counts: bool) -> None:
    found = ways.threads_outside(release)
    assert found == 0 or counts
    if counts and os.geteuid() != 0:
        assert found > 0


@pytest.mark.parametrize("machine", calls.MACHINES)
def test_the_filter_jumps_within_itself(machine: str) -> None:
    """Every line is reached by the one before it or a jump, every jump ends within, and the last line answers."""
    lines = calls.filter_lines(machine)
    assert len(lines) < 4096
    for place, (code, true, false, _) in enumerate(lines):
        if code != calls.ANSWER:
            assert place + 1 + max(true, false) < len(lines)
    assert lines[-1] == (calls.ANSWER, 0, 0, calls.ALLOW)


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("column", [0, 1], ids=calls.MACHINES)
def test_calls_have_the_kernels_numbers(column: int) -> None:
    header = list(HEADERS.values())[column]
    if not header.exists():
        pytest.skip(f"no {header}")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text()))
    table = {name: numbers[column] for name, numbers in calls.REFUSED.items()}
    table |= {"clone": calls.CLONE[column], "clone3": calls.CLONE3[column]}
    table |= {"socket": calls.SOCKET[column], "prlimit64": calls.PRLIMIT[column]}
    known = {name: number for name, number in table.items() if number is not None and name in found}
    assert {name: int(found[name]) for name in known} == known
    assert len(known) > 45
