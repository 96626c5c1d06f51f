"""The agents' heartbeat over the store, in a thread of its own, so that a store that is gone never stops an agent.

Every beat says that this node is alive, sends what the agent has to say, and fetches the few keys that it watches.
The agent itself talks only to this object, whose answers are those of the last beat. Silence counts only while somebody
listens: a process that was stopped, swapped out or starved for a minute has not missed the others in it.
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
ATTENTION_S = 2.0  # who has not listened for longer was away, and knows nothing of that time
T = TypeVar("T")

log = logging.getLogger("agent")


class Silence:
    """Time of another's silence that somebody has listened to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listened = clock()
        self.lasts_s = 0.0

    def broken(self) -> None:
        """Note that it was heard."""
        self._listened, self.lasts_s = self._clock(), 0.0

    def listen(self) -> float:
        """Note that it was not heard now either; how long that lasts, in seconds."""
        now = self._clock()
        away_s = now - self._listened
        if away_s > 5 * ATTENTION_S:
            log.warning("was away for %.0f s: who was silent in that time is not missed for it", away_s)
        self._listened = now
        self.lasts_s += min(away_s, ATTENTION_S)
        return self.lasts_s


class Pulse:
    """One agent's connection to the others."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        node: int,
        num_nodes: int,
        watched: Iterable[Key],
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
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
        self._store_answers = threading.Event()
        self._clock = clock
        self._store = Silence(clock)  # of the store, which the leader serves
        self._heard: dict[int, tuple[str, Silence]] = {}  # leader: each node's last beat, and the silence since then
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

    def look_again(self) -> None:
        """Leader, whose store answers at once: fetch what the run is doing now, as a beat of a busy node may be old."""
        self._values[keys.PHASE] = self._rendezvous.get(keys.PHASE)

    def forget(self, watched: Iterable[Key]) -> None:
        """Fetch these no more."""
        for key in watched:
            self._values.pop(key, None)

    def leader_lost(self) -> bool:
        """Whether the store, which the leader serves, has not answered for too long. To be asked all the time."""
        if self._store_answers.is_set():
            self._store_answers.clear()
            self._store.broken()
        return self._store.listen() > self._silence_s

    def lost_nodes(self, silence_s: float | None = None) -> list[int]:
        """Leader only: nodes that have beaten once and then no more for too long, or for this time."""
        too_long_s = self._silence_s if silence_s is None else silence_s
        return [node for node, (_, silence) in list(self._heard.items()) if silence.lasts_s > too_long_s]

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
        self._store_answers.set()

    def _listen(self) -> None:
        silent = [node for node in self._others if node not in self._heard]
        known = [node for node in self._others if node in self._heard]
        known += [node for node in silent if self._rendezvous.get(keys.pulse(node)) is not None]
        for node, beat in zip(known, self._rendezvous.get_many([keys.pulse(node) for node in known]), strict=True):
            before, silence = self._heard.get(node, ("", Silence(self._clock)))
            if before == beat:
                silence.listen()
            else:
                silence.broken()
                self._heard[node] = (beat, silence)
