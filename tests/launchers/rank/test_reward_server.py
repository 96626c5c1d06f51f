"""The reward server's process: who may talk to it, how it starts, how it ends."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.reward import RewardInput
from core.reward.remote_messages import dump_sample, request_body
from tests.support.engine_servers import wait_ended
from tests.support.hostile import Hostile
from tests.support.reward_servers import KEY, RunningServer, running_servers, start_server, write_run_file
from tests.support.waiting import wait_until

DEADLINE_S = 180.0
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


def a_request(**changes: Any) -> bytes:
    """Of one sample, with fields as no client sends them."""
    return json.dumps([json.loads(dump_sample(RewardInput("p", "r"))) | changes]).encode()


def wait_up(server: RunningServer) -> RunningServer:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        try:
            httpx.get(f"{server.member.url}/health", headers=AUTHORIZED).raise_for_status()
            return server
        except httpx.HTTPError:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    run_dir = write_run_file(tmp_path_factory.mktemp("server"), num_workers=5)
    with running_servers(run_dir, 1, ["--num-workers", "2"]) as servers:
        yield wait_up(servers[0])


def ask(server: RunningServer, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(method, f"{server.member.url}{path}", timeout=DEADLINE_S, **options)


def test_the_node_may_have_its_own_number_of_workers(server: RunningServer) -> None:
    assert ask(server, "GET", "/health", headers=AUTHORIZED).json() == {"num_workers": 2}
    assert len(psutil.Process(server.process.pid).children()) == 2


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}], ids=str)
@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/score")])
def test_nothing_without_the_key(server: RunningServer, headers: dict[str, str], method: str, path: str) -> None:
    answer = ask(server, method, path, headers=headers, content=b"x" if method == "POST" else None)
    assert (answer.status_code, KEY in answer.text) == (401, False)


def test_the_key_is_nowhere_to_be_read(server: RunningServer) -> None:
    assert KEY not in server.log.read_text()
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    assert not any(KEY in word for process in family for word in process.cmdline())


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[[]]", b"[{}]", a_request(response_text=1), a_request(metadata=[]), a_request(label={"!": "x"})],
)
def test_unreadable_requests_are_refused(server: RunningServer, body: bytes) -> None:
    answer = ask(server, "POST", "/score", headers=AUTHORIZED, content=body)
    assert (answer.status_code, answer.text[:26]) == (400, "the request cannot be read")


def test_a_pickle_is_refused_and_not_run(server: RunningServer, tmp_path: Path) -> None:
    answer = ask(server, "POST", "/score", headers=AUTHORIZED, content=pickle.dumps([Hostile(tmp_path / "trace")]))
    assert answer.status_code == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["TERM", "KILL"])
def test_stopped_or_killed_it_leaves_nothing(number: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    with running_servers(write_run_file(tmp_path / "run", num_workers=2), 1) as servers:
        server = wait_up(servers[0])
        hanging, quick = RewardInput("p", f"hang {tmp_path / 'pids'}"), RewardInput("p", "value 1")
        body = request_body([dump_sample(hanging), dump_sample(quick)])
        with httpx.stream("POST", f"{server.member.url}/score", headers=AUTHORIZED, content=body) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line) == "[1, 1.0, null, {}]"
            wait_until((tmp_path / "pids").exists, "the pids are written")
            family = psutil.Process(server.process.pid).children(recursive=True)
            server.process.send_signal(number)
            assert server.process.wait(DEADLINE_S) == exit_code
            with pytest.raises(httpx.RemoteProtocolError):  # never a failed score for what it did not finish
                assert list(lines) == [""]
        workers = [p for p in family if "core.reward.worker" in " ".join(_cmdline(p))]
        wait_ended(workers)
        for pid in map(int, (tmp_path / "pids").read_text().split()[1:]):  # the function's own child, if orphaned
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        pytest.param({"path": "no.py:f"}, "no file", id="unusable section"),
        pytest.param({"path": "leaves.py:f"}, "a reward worker cannot be started", id="worker dies at import"),
    ],
)
def test_what_cannot_start_says_why_and_exits_1(reward: dict[str, Any], words: str, tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path / "run", **reward)
    (run_dir / "leaves.py").write_text("import os\nos._exit(5)\n")
    with running_servers(run_dir, 1) as servers:
        assert servers[0].process.wait(DEADLINE_S) == 1
    (last,) = [line for line in servers[0].log.read_text().splitlines() if "cannot start" in line]
    assert "the reward server of node 0 cannot start" in last
    assert words in last


def test_a_port_in_use_says_why_and_exits_1(tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start_server(run_dir, 0, taken.getsockname()[1])
        try:
            assert server.process.wait(DEADLINE_S) == 1
        finally:
            server.process.kill()
            server.process.wait(30)
    assert "Address already in use" in server.log.read_text()


def test_its_stacks_can_be_asked_for(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "most recent call first" in server.log.read_text(), "stacks are in the log")
    assert ask(server, "GET", "/health", headers=AUTHORIZED).status_code == 200
