"""A process that runs a user's function, as its owner sees it: started, watched, killed with all that it started.

Without the run's keys in its environment, and in a process group of its own. A fresh interpreter, not multiprocessing's
spawn: that would import the caller's main module, and with it torch. What it says is never unpickled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

from core.processes.die_with_parent import die_with_parent

KEYS = ("EBBTIDE_API_KEY", "EBBTIDE_ENGINE_API_KEY")
START_TIMEOUT_S = 120.0  # imports on a slow shared file system
EXIT_TIMEOUT_S = 10.0
READY = "ready"  # the first answer of a process that is; another says why it is not
MAX_MESSAGE_CHARACTERS = 500


class WorkerStartError(RuntimeError):
    """A process for a user's function could not be made ready. The message says why."""


class UserProcess:
    """`python -P -m MODULE DESCRIPTOR... PID_OF_THIS_PROCESS`; the module begins with `die_with_parent`.

    The kernel kills it when the *thread* that made it ends: that thread must live as long as the process is needed.
    """

    def __init__(self, module: str, *descriptors: int) -> None:
        """Start the process.

        Args:
            descriptors: files and sockets that it gets under the same numbers.
        """
        self._ending = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, descriptors), str(os.getpid())],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Asks without reaping: as long as the dead leader is not reaped, its process group's number is not reused."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self) -> None:
        """End the process and its children, and reap it. May be called again, and from any thread."""
        with self._ending:
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(EXIT_TIMEOUT_S)

    def how_it_ended(self) -> str:
        """`died of SIGSEGV`, `ended with exit code 3`; killed now if it has not ended."""
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:  # the socket closes a little before the process is gone
            time.sleep(0.01)
        self.kill()
        code = self._process.returncode
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def received(connection: Connection, timeout_s: float) -> bytes:
    """The next message of a process. Raises TimeoutError; EOFError or OSError where there is nobody."""
    if not connection.poll(timeout_s):
        raise TimeoutError
    return connection.recv_bytes()


def why_not_ready(process: UserProcess, connection: Connection, settings: bytes) -> str:
    """Send a process what it begins with, and wait until it is ready. Returns: why it is not; empty: it is."""
    try:
        connection.send_bytes(settings)
        answer = received(connection, START_TIMEOUT_S).decode("utf-8", "replace")
    except TimeoutError:
        return f"it was not ready after {START_TIMEOUT_S:.0f} s"
    except (EOFError, OSError):
        return f"it {process.how_it_ended()}"
    return "" if answer == READY else answer or "it gave no reason"


def connection_to_owner() -> Connection:
    """The socket that this process, which was started by `UserProcess` with one descriptor, speaks over."""
    descriptor, parent_pid = map(int, sys.argv[1:])
    die_with_parent(parent_pid)
    os.set_inheritable(descriptor, False)  # or a program that a user's function starts would keep the socket open
    return Connection(descriptor)


def short(text: str) -> str:
    """A text of a user's code, cut to what a message may hold."""
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[:MAX_MESSAGE_CHARACTERS] + "..."


def _environment() -> dict[str, str]:
    """The environment of this process without keys; the new process finds the same modules."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    kept = {name: value for name, value in os.environ.items() if name not in KEYS}
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
