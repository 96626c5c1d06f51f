"""The process that owns a cluster: starts its daemons, answers commands on a socket, and ends with its owner.

Every daemon is a child that the kernel kills when the guard dies, and each node is a process-id namespace, so that
nothing of a cluster outlives its guard, whatever kills it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.slurm_cluster import network
from tests.slurm_cluster.people import sweep
from tests.slurm_cluster.settings import Settings, write_files

NODE = ["unshare", "--uts", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Guard:
    """The cluster's daemons as children of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.stop_asked = False
        self._pending_since: dict[str, float] = {}

    def spawn(self, name: str, command: list[str]) -> int:
        """Start a daemon that dies with this process; its output goes to log/NAME.out."""
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(self.folder / "slurm.conf")}
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self.children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                cwd="/",
            )
        return self.children[name].pid

    def ask(self, *command: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
        """A client command against this cluster."""
        environment = {"PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s)

    def wait_until(self, what: str, ready: Callable[[], bool], deadline_s: float = 60.0) -> None:
        """Wait for a daemon, not longer than it lives."""
        end = time.monotonic() + deadline_s
        while not ready():
            dead = [name for name, child in self.children.items() if child.poll() is not None]
            if dead or time.monotonic() > end:
                raise RuntimeError(
                    f"{what}: not within {deadline_s:.0f} s; dead: {dead or 'none'}; see {self.folder}/log"
                )
            time.sleep(0.05)

    def start(self) -> None:
        """Network, munge, accounting, controller, nodes; returns when all nodes are idle."""
        for name in ("log", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        switch = self.spawn("switch", network.SWITCH)
        self.settings = replace(self.settings, index=network.claim_index(switch))
        network.connect_host(self.settings, switch)
        write_files(self.settings)
        sweep(self.settings.people)
        for index in range(self.settings.gpus):
            os.mknod(self.folder / "dev" / f"nvidia{index}", 0o20666, os.makedev(1, 3))
        self._start_munge()
        if self.settings.accounting:
            self._start_accounting()
        if self.settings.num_people:
            self._open_login()
        self._start_controller("-c")
        for node in self.settings.nodes:
            self.start_node(node)
        self.wait_until("all nodes idle", self._all_idle)

    def _start_controller(self, *options: str) -> None:
        conf = f"{self.folder}/slurm.conf"
        self.spawn("slurmctld", [*self._knowing_people(), "slurmctld", "-D", *options, "-f", conf])

    def _knowing_people(self) -> list[str]:
        """What a daemon's command begins with that looks up the users of jobs."""
        script = str(Path(__file__).with_name("people.sh"))
        return ["unshare", "--mount", "--", "bash", script, str(self.folder)] if self.settings.num_people else []

    def _open_login(self) -> None:
        """This machine as its users see it: a mount namespace that commands enter."""
        pid = self.spawn("login", [*self._knowing_people(), "sleep", "inf"])
        (self.folder / "run" / "login.pid").write_text(str(pid))
        self.wait_until("the login node", lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sleep", 10.0)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o600)
        files = [f"--{kind}={folder / name}" for kind, name in
                 (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed"))]  # fmt: skip
        self.spawn("munged", ["munged", "-F", *files, f"--log-file={self.folder}/log/munged.log"])
        self.wait_until("munge answers", lambda: self.ask("munge", "-n", "-S", f"{folder}/socket").returncode == 0)

    def _start_accounting(self) -> None:
        data = self.folder / "mysql"
        data.mkdir()
        common = ["--no-defaults", "--user=root", f"--datadir={data}"]
        made = self.ask("mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db")
        if made.returncode != 0:
            raise RuntimeError(f"mariadb-install-db: {made.stdout}{made.stderr}")
        small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
        port = self.settings.controller_port + 3
        where = [f"--socket={data}/socket", "--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={data}/pid"]
        self.spawn("mariadbd", ["mariadbd", *common, *where, *small, "--innodb-lock-wait-timeout=900"])
        client = ["mariadb", "--no-defaults", "-u", "root", "-S", f"{data}/socket", "-e"]
        self.wait_until("database answers", lambda: self.ask(*client, "select 1").returncode == 0)
        users = [f"'slurm'@'{host}'" for host in ("127.0.0.1", "localhost")]
        grants = [f"create user {u} identified by 'slurm'; grant all on slurm_acct.* to {u};" for u in users]
        self.ask(*client, "create database slurm_acct; " + " ".join(grants)).check_returncode()
        self.spawn("slurmdbd", ["slurmdbd", "-D"])
        self.wait_until("slurmdbd answers", lambda: self.ask("sacctmgr", "-n", "show", "cluster").returncode == 0)
        self.ask("sacctmgr", "-i", "add", "cluster", "ebbtide")

    def _all_idle(self) -> bool:
        return len(set(self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").stdout.split())) == len(
            self.settings.nodes
        )

    def start_node(self, node: str) -> None:
        """Boot a node: namespaces, cable, slurmd."""
        if node in self.children:
            raise RuntimeError(f"{node} runs already: kill-node first")
        script = str(Path(__file__).with_name("node.sh"))
        where = [str(self.folder), self.settings.address(node), self.settings.host_address]
        pid = self.spawn(node, [*NODE, "bash", script, node, *where])
        network.connect_node(node, pid, self.children["switch"].pid)
        (self.folder / "run" / f"{node}.pid").write_text(str(pid))

    def end(self, name: str, number: signal.Signals, grace_s: float) -> None:
        """Signal one daemon, then kill it; for a node both take every process of the node."""
        child = self.children.pop(name, None)
        if child is None:
            return
        child.send_signal(number)
        try:
            child.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(timeout=20)

    def stop(self) -> None:
        """Nodes at once, then the daemons in the order in which they need each other."""
        for node in self.settings.nodes:
            self.end(node, signal.SIGKILL, 20.0)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged", "login", "switch"):
            self.end(name, signal.SIGTERM, 10.0)
        sweep(self.settings.people)

    def hasten_requeued(self) -> None:
        """Let requeued jobs start after `requeue_delay_s` instead of 120 s.

        Not at once: a restart within the second of the requeue is lost ("Job credential revoked").
        """
        delay_s = self.settings.requeue_delay_s
        if delay_s is None:
            return
        listed = self.ask("squeue", "-h", "-t", "PD", "-O", "JobID:20,RestartCnt:12,Reason:30").stdout
        rows = [line.split() for line in listed.splitlines()]
        waiting = {row[0] for row in rows if len(row) == 3 and row[1] != "0" and row[2] == "BeginTime"}
        now = time.monotonic()
        self._pending_since = {job: self._pending_since.get(job, now) for job in waiting}
        for job in [job for job, since in self._pending_since.items() if now - since >= delay_s]:
            self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def obey(self, words: list[str]) -> str:
        """One command of the socket; the answer's first word is `ok` or `error`."""
        try:
            match words:
                case ["stop"]:
                    self.stop_asked = True
                case ["kill-node", node] if node in self.settings.nodes:
                    self.end(node, signal.SIGKILL, 20.0)
                case ["start-node", node] if node in self.settings.nodes:
                    self.start_node(node)
                case ["stop-controller"]:
                    self.end("slurmctld", signal.SIGKILL, 20.0)
                case ["start-controller"] if "slurmctld" not in self.children:
                    self._start_controller()
                case ["requeue-delay", seconds]:
                    self.settings = replace(
                        self.settings, requeue_delay_s=None if seconds == "none" else float(seconds)
                    )
                case _:
                    raise ValueError(f"unknown command {' '.join(words)}; nodes: {' '.join(self.settings.nodes)}")
        except Exception as error:
            return f"error {error}"
        return "ok"

    def serve(self, server: socket.socket, owner: int | None, lifetime_s: float) -> None:
        """Answer commands until a stop is asked, the owner is gone or the lifetime is over."""
        end = time.monotonic() + lifetime_s
        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        if owner is not None:
            selector.register(owner, selectors.EVENT_READ)
        while not self.stop_asked and time.monotonic() < end:
            for key, _ in selector.select(timeout=1.0):
                if key.fileobj is server:
                    self._answer(server)
                else:
                    self.stop_asked = True  # the owner is dead
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.hasten_requeued()

    def _answer(self, server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            connection.sendall(self.obey(connection.recv(4096).decode().split()).encode())


def main() -> None:
    """`guard.py FOLDER OWNER LIFETIME_S`: settings come from FOLDER/wanted.json; FOLDER/ready says that it runs."""
    os.umask(0o022)  # every user of the cluster reads its files
    folder, owner, lifetime_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held for life: an unlocked folder is a dead cluster's
    guard = Guard(Settings.from_json((folder / "wanted.json").read_text()))

    def ask_to_stop(number: int, frame: object) -> None:
        guard.stop_asked = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    owner_fd = os.pidfd_open(owner) if owner > 0 else None
    try:
        guard.start()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "commands"))
            server.listen()
            (folder / "ready").write_text("")
            guard.serve(server, owner_fd, lifetime_s)
    except Exception as error:
        (folder / "failed").write_text(str(error))
        raise
    finally:
        guard.stop()
        if (folder / "ready").exists() and not (folder / "keep").exists():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
