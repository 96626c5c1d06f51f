"""The process of a user's own `rollout.filter`, as trainer rank 0 sees it: asked group by group, with a time limit.

    ->  plain values: the rollout section                       answered by READY, or the reason why it cannot filter
    ->  plain values: a list of mappings, the fields of the group's `ScoredSample`s          by [reason, failure]

What comes from a process that runs a user's function is never unpickled.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from core.config.sections.rollout import RolloutConfig
from core.processes import plain
from core.processes.user_process import UserProcess, WorkerStartError, received, why_not_ready
from core.reward.sample import ScoredSample

NO_ANSWER = "no answer"  # as a reason

log = logging.getLogger(__name__)


class FilterProcess:
    """One process, replaced when it dies or hangs. The thread that starts it must live as long as it is needed."""

    def __init__(self, config: RolloutConfig, timeout_s: float) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._process: UserProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Return when the process can filter.

        Raises:
            WorkerStartError: the function cannot be loaded, the process died, or 120 s have passed.
        """
        self.close()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = UserProcess("core.rollout.filter_worker", theirs.fileno())
        if why := why_not_ready(self._process, self._connection, plain.dump(self._config.model_dump())):
            self.close()
            raise WorkerStartError(f"the process of rollout.filter {self._config.filter} cannot be started: {why}")

    def ask(self, group: Sequence[ScoredSample]) -> tuple[str, str]:
        """Why the group is rejected, empty if it passed; and why there is no answer, empty if there is one."""
        row = f"; row {group[0].row}"
        try:
            if self._process is None or not self._process.alive:
                self.start()
            assert self._connection is not None
            self._connection.send_bytes(plain.dump([_fields(one) for one in group]))
            reason, failure = json.loads(received(self._connection, self._timeout_s))
            return str(reason), f"{failure}{row}" if failure else ""
        except plain.NotPlain as error:
            return NO_ANSWER, f"the group cannot be sent to rollout.filter: {error}{row}"
        except WorkerStartError as error:
            return NO_ANSWER, str(error)
        except TimeoutError:
            failure = f"no answer within {self._timeout_s:g} s (reward.timeout_s); its process was killed"
        except (EOFError, OSError):
            failure = f"its process {self._process.how_it_ended() if self._process else 'is gone'}"
        except (ValueError, TypeError) as error:  # the function has written to the socket
            failure = f"its answer cannot be read ({error}); its process was killed"
        self.close()
        log.warning("filter process lost: %s", failure)
        return NO_ANSWER, failure + row

    def close(self) -> None:
        """Kill the process. May be called again."""
        if self._process is not None:
            self._process.kill()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _fields(sample: ScoredSample) -> dict[str, Any]:
    messages = [dict(one) for one in sample.messages]
    parts = dict(sample.reward_parts)
    return {**vars(sample), "metadata": dict(sample.metadata), "messages": messages, "reward_parts": parts}
