"""One scoring process as its owner sees it: start, ask with a time limit, kill.

The two speak as a reward server and its clients do (`core.reward.remote_messages`), one sample at a time: what comes
from a process that runs a user's function is never unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing import Pipe

from core.config.sections.reward import RewardConfig
from core.config.set_rewards import place_of_own
from core.processes import plain
from core.processes.user_process import UserProcess, WorkerStartError, received, why_not_ready
from core.reward.remote_messages import dump_sample, load_score, request_body
from core.reward.sample import RewardInput, Score

# a function that imports torch when it is called would be killed for ever, each time before the import ends
FIRST_CALL = ", in its first call: what is imported in a call counts, what is imported at the top of the file does not"


class WorkerGone(RuntimeError):
    """The process was found dead before it was given the sample."""


class WorkerProcess:
    """A scoring process of its own process group, so that what a reward function starts dies with it.

    The kernel kills it when the *thread* that made it ends: that thread must live as long as the worker is needed.
    """

    def __init__(self, config: RewardConfig, of_sets: Mapping[str, RewardConfig] | None = None) -> None:
        """Start the process; `wait_ready` must follow.

        Args:
            of_sets: by name, the rewards of evaluation sets that are scored otherwise than by `config`.
        """
        self._config = config
        self._of_sets = of_sets or {}
        self._num_asked = 0
        self._connection, theirs = Pipe()
        with theirs:
            self._process = UserProcess("core.reward.worker", theirs.fileno())

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Send the configuration, and wait until the process can score.

        Raises:
        WorkerStartError: the scorer cannot be built, the process died, or 120 s have passed.
        """
        of_sets = {name: one.model_dump() for name, one in self._of_sets.items()}
        told = plain.dump({"reward": self._config.model_dump(), "of_sets": of_sets})
        if why := why_not_ready(self._process, self._connection, told):
            self.kill()
            types = [f"reward.type {self._config.type}"]
            types += [f"{place_of_own(name)}.type {one.type}" for name, one in self._of_sets.items()]
            raise WorkerStartError(f"a reward worker cannot be started ({', '.join(types)}): {why}")

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
            self._num_asked += 1
        except OSError as error:
            self.kill()
            raise WorkerGone(str(error)) from error
        return self._answer()

    def _answer(self) -> Score:
        try:
            found = load_score(
                received(self._connection, self._config.timeout_s).decode("ascii"), num_samples=self._num_asked
            )
            if found is None:
                raise ValueError("it is empty")
            number, score = found
            if number != self._num_asked - 1:
                raise ValueError(f"it is that of sample {number}, not of {self._num_asked - 1}")
            return score
        except TimeoutError:
            self.kill()
            first = FIRST_CALL if self._num_asked == 1 else ""
            limit = f"no reward within {self._config.timeout_s:g} s (reward.timeout_s)"
            return Score(None, f"{limit}; the worker was killed{first}")
        except (EOFError, OSError):
            return Score(None, f"the reward worker {self._process.how_it_ended()}")
        except Exception as error:  # the function has written to the worker's socket, and what, nobody knows
            self.kill()
            return Score(None, f"the reward worker's answer cannot be read ({error}); the worker was killed")

    @property
    def alive(self) -> bool:
        return self._process.alive

    def kill(self) -> None:
        """End the process and its children, and reap it. May be called again, and from any thread."""
        self._process.kill()

    def close(self) -> None:
        """Kill, and give the socket back. Only by the thread that uses it."""
        self.kill()
        self._connection.close()
