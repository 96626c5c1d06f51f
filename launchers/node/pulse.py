"""The agents' heartbeat over the store, in a thread of its own, so that a store that is gone never stops an agent.

Every beat says that this node is alive, sends what the agent has to say, and fetches the few keys that it watches.
The agent itself talks only to this object, whose answers are those of the last beat.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from core.processes import keys
from core.processes.keys import Key
from core.processes.rendezvous import Rendezvous
from core.run_dir.moment import Moment, moment_from_json

BEAT_S = 0.5
T = TypeVar("T")

log = logging.getLogger("agent")


class Pulse:
    """One agent's connection to the others."""

    def __init__(
        self, rendezvous: Rendezvous, node: int, num_nodes: int, watched: Iterable[Key], silence_s: float
    ) -> None:
        """Prepare the pulse of one node.

        Args:
        silence_s: a node that is silent for this time counts as lost.
        watched: keys whose values `value` tells; the run's phase is always among them.
        """
        self._rendezvous = rendezvous
        self._node = node
        self._silence_s = silence_s
        self._others = [other for other in range(num_nodes) if other != node]
        self._values: dict[Key, str | None] = dict.fromkeys((*watched, keys.PHASE))
        self._outbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._beat = 0
        self._last_beat = time.monotonic()
        self._heard: dict[int, tuple[str, float]] = {}  # leader: each node's last beat, and when it came
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is left to say, and end; gives up after two beats if the store does not answer."""
        self._stopping.set()
        self._thread.join(4 * BEAT_S)

    def post(self, key: Key, value: str) -> None:
        """Set a key at the next beat; what is posted first is set first."""
        self._outbox.put(partial(self._rendezvous.set, key, value))

    def count(self, key: Key) -> None:
        """Add one to a counter at the next beat."""
        self._outbox.put(partial(self._rendezvous.add, key))

    def ask(self, question: Callable[[Rendezvous], T]) -> Future[T]:
        """Have the store asked something at the next beat, after what was posted before; the answer, or the error."""
        answer: Future[T] = Future()

        def put() -> None:
            try:
                answer.set_result(question(self._rendezvous))
            except Exception as error:
                answer.set_exception(error)
                raise

        self._outbox.put(put)
        return answer

    def value(self, key: Key) -> str | None:
        """A watched key as of the last beat."""
        return self._values[key]

    @property
    def moment(self) -> Moment:
        """What the run was doing at the last beat."""
        return moment_from_json(self._values[keys.PHASE])

    def forget(self, watched: Iterable[Key]) -> None:
        """Fetch these no more."""
        for key in watched:
            self._values.pop(key, None)

    def leader_lost(self) -> bool:
        """Whether the store, which the leader serves, has not answered for too long."""
        return time.monotonic() - self._last_beat > self._silence_s

    def lost_nodes(self) -> list[int]:
        """Leader only: nodes that have beaten once and then no more for too long."""
        now = time.monotonic()
        return [node for node, (_, heard) in list(self._heard.items()) if now - heard > self._silence_s]

    def _run(self) -> None:
        while True:
            ending = self._stopping.wait(BEAT_S)
            try:
                self._once()
            except Exception as error:  # whatever it is: what counts is for how long it lasts
                log.warning("store %s: %s", self._rendezvous.address, str(error).splitlines()[0])
            if ending:
                return

    def _once(self) -> None:
        self._beat += 1
        self._rendezvous.set(keys.pulse(self._node), str(self._beat))
        while not self._outbox.empty():
            self._outbox.get()()
        for key in list(self._values):
            value = self._rendezvous.get(key)
            if key in self._values:  # not forgotten meanwhile
                self._values[key] = value
        if self._node == 0:
            self._listen()
        self._last_beat = time.monotonic()

    def _listen(self) -> None:
        silent = [node for node in self._others if node not in self._heard]
        known = [node for node in self._others if node in self._heard]
        known += [node for node in silent if self._rendezvous.get(keys.pulse(node)) is not None]
        now = time.monotonic()
        for node, beat in zip(known, self._rendezvous.get_many([keys.pulse(node) for node in known]), strict=True):
            if self._heard.get(node, ("", 0.0))[0] != beat:
                self._heard[node] = (beat, now)
