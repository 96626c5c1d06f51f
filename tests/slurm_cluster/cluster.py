"""A running test cluster as tests and the shell see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.slurm_cluster.people import Person
from tests.slurm_cluster.settings import Settings

ROOT = Path(__file__).parents[2]
PREFIX = "ebbtide-slurm."
START_TIMEOUT_S = 120.0
NEEDED = ("slurmctld", "slurmd", "munged", "ip", "unshare", "nsenter", "setpriv")
ACCOUNTING = ("slurmdbd", "mariadbd")


class ClusterError(RuntimeError):
    """The cluster did not start, or a command against it failed."""


def missing(accounting: bool = True) -> list[str]:
    """Programs that a cluster needs and that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    needed = (*NEEDED, *ACCOUNTING) if accounting else NEEDED
    return [name for name in needed if shutil.which(name, path=path) is None]


def why_not(accounting: bool = True) -> str | None:
    """The reason for which no cluster, with accounting or without, can be started here; None if it can."""
    if os.geteuid() != 0:
        return "a test cluster needs root (namespaces)"
    if lacking := missing(accounting):
        return f"not installed: {', '.join(lacking)}; python -m tests.slurm_cluster install"
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"], timeout=20)
    return "this machine refuses namespaces (unshare failed)" if probe.returncode else None


class Cluster:
    """A cluster whose guard runs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.from_json((folder / "settings.json").read_text())
        self.conf = folder / "slurm.conf"
        self.nodes = self.settings.nodes

    @classmethod
    def start(cls, wanted: Settings, owner: int = 0, lifetime_s: float = 7200.0) -> Cluster:
        """Start a cluster that ends when process `owner` (0: nobody) does, at the latest after `lifetime_s`.

        Raises:
            ClusterError: it is not up within two minutes; the message holds the reason, the folder its logs.
        """
        sweep()
        folder = Path(wanted.folder) if wanted.folder else Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        folder.chmod(0o755)  # jobs of other users read it
        (folder / "wanted.json").write_text(replace(wanted, folder=str(folder)).to_json())
        with (folder / "guard.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.slurm_cluster.guard", str(folder), str(owner), str(lifetime_s)]
            guard = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START_TIMEOUT_S
        while not (folder / "ready").exists():
            if guard.poll() is not None or time.monotonic() > end:
                guard.kill()
                raise ClusterError(
                    f"cluster did not start: {(folder / 'guard.log').read_text()[-2000:]}\nlogs: {folder}"
                )
            time.sleep(0.05)
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def command(self, *words: str) -> None:
        """Send a command to the guard."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60.0)
            connection.connect(str(self.folder / "commands"))
            connection.sendall(" ".join(words).encode())
            answer = connection.recv(4096).decode()
        if answer != "ok":
            raise ClusterError(answer or f"the guard of {self.folder} died")

    def stop(self) -> None:
        """End everything; returns when it is gone."""
        with contextlib.suppress(ConnectionError, FileNotFoundError):  # it has ended by itself
            self.command("stop")
        wait_until(lambda: not is_alive(self.folder), 60.0, "the cluster's guard to end")

    def kill_node(self, node: str, down: bool = False) -> None:
        """Crash a node: every process of it is killed.

        Slurm notices by itself after 10 to 30 s; with `down` it is told so at once.
        """
        self.command("kill-node", node)
        if down:
            self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed by a test")

    def start_node(self, node: str) -> None:
        """Boot a killed node again and wait until it can take jobs."""
        self.command("start-node", node)
        wait_until(lambda: self._answers(node), 30.0, f"slurmd of {node} to answer")
        wait_until(lambda: self.node_state(node) in ("idle", "mixed", "allocated"), 30.0, f"{node} to come back")

    def _answers(self, node: str) -> bool:
        try:
            self.on_node(node, "scontrol", "show", "slurmd")
        except (ClusterError, OSError, IndexError):
            return False
        return True

    def node_state(self, node: str) -> str:
        """Slurm's word for a node: idle, mixed, allocated, down, idle* (does not answer), …

        All nodes are asked for. Asked for one, Slurm 22.05 answers from what it worked out when somebody last asked
        for all: after jobs that ended within a second of each other a node stays mixed for ever.
        """
        return self._seen_of(node, "%T")

    def _seen_of(self, node: str, form: str) -> str:
        """What sinfo shows of a node, in sinfo's format; a node of two partitions has two lines, the same here."""
        lines = (line.partition(" ") for line in self.run("sinfo", "-h", "-N", "-o", f"%n {form}").splitlines())
        return next(told for name, _, told in lines if name == node)

    def address(self, node: str) -> str:
        """The node's address: reachable from all nodes and from here. Names resolve on the nodes only."""
        return self.settings.address(node)

    def run(self, *command: str, timeout_s: float = 60.0, **options: object) -> str:
        """Standard output of a command on the login side (here). Raises ClusterError with both outputs."""
        environment = {**os.environ, **self.environment, **_strings(options.pop("env", {}))}
        done = subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, timeout=timeout_s, env=environment, **options
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return str(done.stdout)

    def on_node(self, node: str, *command: str, timeout_s: float = 60.0) -> str:
        """Standard output of a command run as root on a node, outside every job."""
        pid = (self.folder / "run" / f"{node}.pid").read_text()
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return self.run("nsenter", "--all", f"--target={child}", "--", *command, timeout_s=timeout_s)

    def as_person(self, person: Person, *command: str, node: str | None = None, timeout_s: float = 60.0) -> str:
        """Standard output of a command of one of the cluster's users, at home; outside every job.

        On this machine, as its users see it, or on a node.
        """
        words = [*person.switch(self.environment), *command]
        if node is not None:
            return self.on_node(node, *words, timeout_s=timeout_s)
        login = (self.folder / "run" / "login.pid").read_text()
        return self.run("nsenter", "--mount", f"--target={login}", "--", *words, timeout_s=timeout_s)

    def processes(self, node: str) -> dict[int, str]:
        """Command lines of a node's processes by pid (as seen from here), slurmd's own left out."""
        pid = int((self.folder / "run" / f"{node}.pid").read_text())
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/net")
        except OSError:
            return {}
        found = {int(entry.name): _command_line(entry) for entry in _processes_in(namespace) if int(entry.name) != pid}
        own = (str(Path(__file__).with_name("node.sh")), "slurmd", "slurmstepd", "sleep inf")
        return {key: line for key, line in found.items() if line and not any(word in line for word in own)}

    def live_jobs(self) -> list[str]:
        """Ids of all jobs that have not ended."""
        return self.run("squeue", "-h", "-o", "%i").split()

    def wait_for_state(self, job_id: str, states: Iterable[str], deadline_s: float = 60.0) -> str:
        """Until squeue shows job (or component) `job_id` in one of these states; returns it.

        A busy controller may leave a question without an answer: it is asked again.
        """
        wanted, last = set(states), [""]

        def reached() -> bool:
            try:
                last[0] = self.run("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T").split("\n")[0]
            except (ClusterError, subprocess.TimeoutExpired) as error:
                last[0] = f"not known: {error}"
            return last[0] in wanted

        wait_until(reached, deadline_s, f"job {job_id} to be one of {sorted(wanted)}", lambda: f"it is {last[0]}")
        return last[0]

    def reset(self) -> None:
        """No jobs, all nodes up, quick requeues: what the next test expects."""
        self.command("requeue-delay", "4")
        if jobs := {job.split("_")[0].split("+")[0] for job in self.live_jobs()}:
            self.run("scancel", *sorted(jobs))
        for node in self.nodes:
            pid = (self.folder / "run" / f"{node}.pid").read_text()
            if not Path(f"/proc/{pid}").exists():
                self.start_node(node)
        wait_until(lambda: not self.live_jobs(), 60.0, "the queue to be empty", lambda: str(self.live_jobs()))
        for node in self.nodes:
            self._wait_for_idle(node)

    def _wait_for_idle(self, node: str) -> None:
        """Until a node has nothing to do."""

        def is_idle() -> bool:
            state = self.node_state(node)
            if state.startswith(("down", "drain", "fail")):
                self._resume(node)
            return state == "idle"

        wait_until(is_idle, 90.0, f"{node} to be idle", lambda: f"it is {self._seen_of(node, '%T %E')}")

    def _resume(self, node: str) -> None:
        """Give a node back that Slurm has given up."""
        subprocess.run(
            ["scontrol", "update", f"NodeName={node}", "State=RESUME"],
            env={**os.environ, **self.environment},
            capture_output=True,
            timeout=30,
        )

    def logs(self, max_lines: int = 20) -> str:
        """The last lines of each daemon's log."""
        parts = []
        for path in sorted((self.folder / "log").glob("*.log")):
            parts.append(f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-max_lines:]))
        return "\n".join(parts)


def wait_until(
    ready: Callable[[], bool], deadline_s: float, what: str, seen: Callable[[], str] = lambda: "nothing of it seen"
) -> None:
    """Wait for a condition; TimeoutError says what was waited for and what was seen instead."""
    end = time.monotonic() + deadline_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s:.0f} s for {what}: {seen()}")
        time.sleep(0.1)


def is_alive(folder: Path) -> bool:
    """Whether a guard holds the folder's lock."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def sweep() -> None:
    """Remove the folders of clusters whose guard was killed before it could; younger ones may be starting."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        if not is_alive(folder) and time.time() - folder.stat().st_mtime > START_TIMEOUT_S:
            shutil.rmtree(folder, ignore_errors=True)


def _strings(value: object) -> Mapping[str, str]:
    return value if isinstance(value, Mapping) else {}


def _processes_in(namespace: str) -> Sequence[Path]:
    entries = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns" / "net") == namespace:
                entries.append(entry)
        except OSError:
            continue
    return entries


def _command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
