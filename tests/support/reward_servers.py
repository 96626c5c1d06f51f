"""Real reward servers for tests, and a directory that a test writes itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from core.processes.rendezvous import Member
from launchers.node.ports import ReservedPort

FUNCTION = f"{Path(__file__).parent / 'reward_functions.py'}:behave"
KEY = "-key-of-this-test"
ROOT = Path(__file__).parents[2]


@dataclass
class RunningServer:
    """A reward server's process; it may not answer yet."""

    process: subprocess.Popen[bytes]
    member: Member
    log: Path


@dataclass
class WrittenDirectory:
    """Who is published is up to the test; what the client tells is kept."""

    members: list[Member] = field(default_factory=list)
    names: tuple[str, ...] = ()
    ready: list[Member] = field(default_factory=list)
    condemned: list[Member] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.names = self.names or tuple(member.name for member in self.members)

    def published(self) -> list[Member]:
        return list(self.members)

    def answered(self, member: Member) -> None:
        self.ready.append(member)

    def condemn(self, member: Member) -> None:
        self.condemned.append(member)
        self.told.set()


def write_run_file(folder: Path, **reward: object) -> Path:
    """A run directory whose reward section is this; python's `behave` if nothing is given."""
    section = {"type": "python", "path": FUNCTION, "timeout_s": 30.0, **reward}
    run = {
        "model": {"path": "model"},
        "data": {"path": "rows.jsonl"},
        "rollout": {"num_rollout": 1, "rollout_batch_size": 1},
        "train": {"global_batch_size": 8, "lr": 1e-6},
        "reward": section,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


def start_server(run_dir: Path, node: int, port: int, extra: Sequence[str] = ()) -> RunningServer:
    """Start a server as the node agent does; returns at once."""
    log = run_dir / f"rewards-{node}.log"
    command = [
        *(sys.executable, "-m", "launchers.rank.reward_server", "--run-dir", str(run_dir), "--attempt", "1"),
        *("--node", str(node), "--host", "127.0.0.1", "--port", str(port), *extra),
    ]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env={**os.environ, "EBBTIDE_API_KEY": KEY}, cwd=ROOT, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    return RunningServer(process, Member("rewards", f"node{node}", node, "127.0.0.1", process.pid, url), log)


@contextmanager
def running_servers(run_dir: Path, number: int, extra: Sequence[str] = ()) -> Iterator[list[RunningServer]]:
    """Servers for the length of a `with` block, on ports that stay reserved for a restart."""
    ports = [ReservedPort("127.0.0.1") for _ in range(number)]
    servers = [start_server(run_dir, node, port.number, extra) for node, port in enumerate(ports)]
    try:
        yield servers
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait(30)
        for port in ports:
            port.close()


def restarted(run_dir: Path, server: RunningServer) -> RunningServer:
    """The next incarnation of a dead server, on its port."""
    again = start_server(run_dir, server.member.node, int(server.member.url.rpartition(":")[2]))
    incarnation = server.member.incarnation + 1
    return RunningServer(again.process, replace(again.member, incarnation=incarnation), again.log)
