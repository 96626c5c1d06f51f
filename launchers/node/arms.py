"""An engine over several nodes: the first node's program has the server, and its arms on the others obey its agent.

    agent of the first node                              agent of an arm
    starts incarnation N; run N, and where to meet ────► ends what is older, starts N
    an arm of N has ended: ends its own of N       ◄──── N has ended, and how
    its own of N has ended: end N                  ────► ends N, or never starts it
    all arms of N have ended: may N + 1 start?     ◄──── N has ended

So whichever program dies, all of that incarnation end, and the next begins when none of them has a GPU any more. Who
counts restarts, asks for permission and hears the driver is the first node's slot alone. Nobody waits here: each acts
at its next look at the store, and a node that says nothing ends the attempt.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from core.config.layout import Share, arm_name
from core.processes import keys
from core.processes.children import Child
from core.processes.keys import Key
from launchers.attempts.failure import Failure, describe_exit
from launchers.node.ports import ReservedPort
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot

RUN, END = "run", "end"
NEVER = -1  # no incarnation


@dataclass(frozen=True)
class Told:
    """What arms are told. `meeting`: host:port, where the programs of the incarnation meet; empty: it is to end."""

    incarnation: int
    meeting: str = ""

    def __str__(self) -> str:
        return f"{self.incarnation} {f'{RUN} {self.meeting}' if self.meeting else END}"

    @classmethod
    def parse(cls, text: str) -> Told:
        """Read back what `str()` wrote."""
        incarnation, _, *meeting = text.split()
        return cls(int(incarnation), *meeting)


class Arms:
    """The arms of an engine, as the slot on its first node sees them (`launchers.node.slot.Followers`)."""

    def __init__(self, engine: str, num_nodes: int, seat: Seat) -> None:
        """Bind the port at which the programs of every incarnation meet."""
        self._engine = engine
        self._ranks = range(1, num_nodes)
        self._port = ReservedPort(seat.host, seat.ports, lent=True)
        self._ending = NEVER
        self.meeting = f"{seat.host}:{self._port.number}"

    @property
    def watched(self) -> tuple[Key, ...]:
        """The keys of the store that are read here."""
        return tuple(keys.arm_ended(self._engine, rank) for rank in self._ranks)

    def start(self, pulse: Pulse, incarnation: int) -> None:
        """Have all of them start it."""
        pulse.post(keys.arms_told(self._engine), str(Told(incarnation, self.meeting)))

    def one_ended(self, pulse: Pulse, incarnation: int) -> str:
        """Which of them has ended, and how; empty: none."""
        for rank in self._ranks:
            ended, how = self._end(pulse, rank)
            if ended == incarnation:
                return f"lost {arm_name(self._engine, rank)} ({how})"
        return ""

    def have_ended(self, pulse: Pulse, incarnation: int) -> bool:
        """Whether all of them have; they are told to."""
        if self._ending != incarnation:
            self._ending = incarnation
            pulse.post(keys.arms_told(self._engine), str(Told(incarnation)))
        return all(self._end(pulse, rank)[0] >= incarnation for rank in self._ranks)

    def close(self) -> None:
        """Give the port back."""
        self._port.close()

    def _end(self, pulse: Pulse, rank: int) -> tuple[int, str]:
        """The last incarnation that an arm has ended, and how."""
        incarnation, _, how = (pulse.value(keys.arm_ended(self._engine, rank)) or f"{NEVER} ").partition(" ")
        return int(incarnation), how


class ArmSlot(ServerSlot):
    """The place of an arm: it starts and ends as it is told, and only says when it has ended."""

    share: Share
    told = Told(NEVER)
    _said = NEVER  # the last incarnation whose end was told

    @property
    def watched(self) -> tuple[Key, ...]:
        """What it is told, and whether its engine is given up."""
        return (keys.arms_told(self.share.engine), self.condemned)

    @property
    def condemned(self) -> Key:
        """The engine's."""
        return keys.server_condemned(self.share.engine)

    def begin(self, pulse: Pulse) -> None:
        """Start nothing before it is told."""

    def keep_running(self, pulse: Pulse) -> Failure | None:
        """Do one thing of what it is told. Its failures are those of its engine: it has none of its own."""
        text = pulse.value(keys.arms_told(self.share.engine))
        if text is None:
            return None
        told, exit_code = Told.parse(text), self.child.exit_code() if self.child is not None else None
        if self.child is not None and exit_code is None:
            self._end_if_told(self.child, told, pulse)
        elif exit_code is not None and self._said < self.told.incarnation:
            self._say_ended(pulse, self.told.incarnation, self._with_last_error(describe_exit(exit_code)))
        elif not told.meeting and self._said < told.incarnation:
            self._say_ended(pulse, told.incarnation, "was not started")
        elif told.meeting and told.incarnation > self.told.incarnation:
            self.told, self._incarnation = told, told.incarnation
            self.start(pulse)
        return None

    def _end_if_told(self, child: Child, told: Told, pulse: Pulse) -> None:
        if told.incarnation > self.told.incarnation or not told.meeting:
            child.signal(signal.SIGKILL)
        else:
            self._end_if_condemned(child, pulse)

    def _say_ended(self, pulse: Pulse, incarnation: int, how: str) -> None:
        self._said = incarnation
        pulse.post(keys.arm_ended(self.share.engine, self.share.rank), f"{incarnation} {how}")
