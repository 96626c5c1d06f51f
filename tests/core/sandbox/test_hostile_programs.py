"""Hostile programs: each ends in time, reaches nothing, and leaves no process and no file."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.sandbox import sandbox as sandboxes
from core.sandbox.sandbox import Sandbox
from tests.core.sandbox.hostile_programs import PROGRAMS, PROLOGUE, Hostile

GONE_S = 60.0
VARIABLE = "EBBTIDE_TEST_MARK"
WAY = os.environ.get("EBBTIDE_TEST_WAY", "namespaces")  # another by test_ways.py


class Surroundings:
    """What there is to attack."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"ebbtide-test-{secrets.token_hex(8)}"
        self.secret = secrets.token_hex(16)
        key = folder / "key"
        key.write_text(self.secret)
        key.chmod(0o600)
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.reached: list[str] = []
        path, abstract = str(folder / "s"), f"{self.mark}-abstract"
        self.servers = [socket.create_server(("127.0.0.1", 0)), _unix(path), _unix(f"\0{abstract}")]
        for server in self.servers:
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()
        self.told = {
            "key": str(key),
            "pid": os.getpid(),
            "victim": self.victim.pid,
            "port": self.servers[0].getsockname()[1],
            "path": path,
            "abstract": abstract,
            "mark": self.mark,
        }

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            self.reached.append(str(server.getsockname()))
            one.close()

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for server in self.servers:
            server.close()


def _unix(address: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    return server


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    os.environ["EBBTIDE_TEST_SECRET"] = secrets.token_hex(16)
    made = Surroundings(tmp_path_factory.mktemp("key"))
    try:
        yield made
    finally:
        made.close()
        del os.environ["EBBTIDE_TEST_SECRET"]


def processes_with(mark: str) -> list[int]:
    """Processes whose environment has the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def tests_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the temporary folders of all tests, of other processes' too."""
    own = tmp_path_factory.getbasetemp()
    return next((folder for folder in own.parents if folder.name.startswith("pytest-of-")), own.parent)


def mounts(elsewhere: Path) -> list[str]:
    """Lines of the mount table, without what tests beside this one mount in the folder of all tests."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if elsewhere not in Path(line.split()[4]).parents]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name.replace(" ", "-"))
def test_a_hostile_program(
    program: Hostile, surroundings: Surroundings, tests_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "find_way", lambda *_: WAY)
    mounts_before = mounts(tests_folder)
    mark = f"{surroundings.mark}-{secrets.token_hex(4)}"
    sandbox = Sandbox(**{"timeout_s": 60.0, **(program.limits or {})}, environment={VARIABLE: mark})
    ran = sandbox.run(PROLOGUE + program.code, json.dumps(surroundings.told) + "\n")
    said = ran.stdout + ran.stderr
    assert ran.stopped == program.stopped, ran
    assert "escaped" not in ran.stdout, ran
    assert program.says in ran.stdout, ran
    if program.exit_code is not None:
        assert ran.exit_code == program.exit_code, ran
    assert len(ran.stdout) <= sandbox.output_bytes >= len(ran.stderr)
    assert surroundings.secret not in said
    assert os.environ["EBBTIDE_TEST_SECRET"] not in said
    assert surroundings.reached == []
    assert surroundings.victim.poll() is None
    assert wait_until(lambda: not processes_with(mark), GONE_S, poll_s=0.01), processes_with(mark)
    left = [name for folder in ("/tmp", "/dev/shm", "/var/tmp") for name in os.listdir(folder)]
    assert [name for name in left if surroundings.mark in name] == []
    assert mounts(tests_folder) == mounts_before
