"""One scoring process as its owner sees it: start, ask with a time limit, kill.

The two speak as a reward server and its clients do (`core.reward.remote_messages`), one sample at a time: what comes
from a process that runs a user's function is never unpickled. A fresh interpreter, not multiprocessing's spawn: that
would import the caller's main module, and with it torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe

from core.config.schema import RewardConfig
from core.processes import plain
from core.reward.remote_messages import dump_sample, load_score, request_body
from core.reward.sample import READY, RewardInput, Score

START_TIMEOUT_S = 120.0  # imports on a slow shared file system
EXIT_TIMEOUT_S = 10.0


class WorkerStartError(RuntimeError):
    """A scoring process could not be made ready. The message says why."""


class WorkerGone(RuntimeError):
    """The process was found dead before it was given the sample."""


class WorkerProcess:
    """A scoring process of its own process group, so that what a reward function starts dies with it.

    The kernel kills it when the *thread* that made it ends: that thread must live as long as the worker is needed.
    """

    def __init__(self, config: RewardConfig) -> None:
        """Start the process; `wait_ready` must follow."""
        self._config = config
        self._ending = threading.Lock()
        self._connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "core.reward.worker", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": _import_path(), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Raises:
        WorkerStartError: the scorer cannot be built, the process died, or 120 s have passed.
        """
        try:
            self._connection.send_bytes(plain.dump(self._config.model_dump()))
            answer = self._receive(START_TIMEOUT_S).decode("utf-8", "replace")
        except TimeoutError:
            answer = f"it was not ready after {START_TIMEOUT_S:.0f} s"
        except (EOFError, OSError):
            answer = f"it {self._how_it_ended()}"
        if answer != READY:
            self.kill()
            raise WorkerStartError(f"a reward worker cannot be started (reward.type {self._config.type}): {answer}")

    def score(self, sample: RewardInput) -> Score:
        """Score one sample. After a failure that names the worker's end, `alive` is false.

        Raises:
            WorkerGone: the process was dead before; the sample has not been tried.
        """
        try:
            request = request_body([dump_sample(sample)])
        except plain.NotPlain as error:
            return Score(None, f"the sample cannot be sent to a reward worker: {error}")
        try:
            self._connection.send_bytes(request)
        except OSError as error:
            self.kill()
            raise WorkerGone(str(error)) from error
        return self._answer()

    def _answer(self) -> Score:
        try:
            found = load_score(self._receive(self._config.timeout_s).decode("ascii"), num_samples=1)
            if found is None:
                raise ValueError("it is empty")
            return found[1]
        except TimeoutError:
            self.kill()
            return Score(
                None, f"no reward within {self._config.timeout_s:g} s (reward.timeout_s); the worker was killed"
            )
        except (EOFError, OSError):
            return Score(None, f"the reward worker {self._how_it_ended()}")
        except Exception as error:  # the function has written to the worker's socket, and what, nobody knows
            self.kill()
            return Score(None, f"the reward worker's answer cannot be read ({error}); the worker was killed")

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

    def close(self) -> None:
        """Kill, and give the socket back. Only by the thread that uses it."""
        self.kill()
        self._connection.close()

    def _receive(self, timeout_s: float) -> bytes:
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        return self._connection.recv_bytes()

    def _how_it_ended(self) -> str:
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:  # the socket closes a little before the process is gone
            time.sleep(0.01)
        self.kill()
        code = self._process.returncode
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def _import_path() -> str:
    """The worker finds the same modules as this process does."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
