"""The place of one server process of a node: started, published, restarted when it dies, at last given up."""

from __future__ import annotations

import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol

from core.engines.starts import try_to_start
from core.processes import keys
from core.processes.children import Child
from core.processes.keys import Key
from core.processes.rendezvous import Member
from core.run_dir.attempt_folder import AttemptFolder
from launchers.attempts.failure import Failure, describe_exit, from_child
from launchers.node.ports import ReservedPort
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat

STACKS = signal.SIGUSR1  # a Python server that hangs is asked to write all its stacks into its log before it is killed

BAD_COMMAND_LINE = 2  # how argparse ends a program

log = logging.getLogger("agent")


class Followers(Protocol):
    """Programs on other nodes that belong to a server: they start with it, and end with it (`launchers.node.arms`)."""

    @property
    def watched(self) -> tuple[Key, ...]:
        """The keys of the store that are read."""
        ...

    def start(self, pulse: Pulse, incarnation: int) -> None:
        """Have all of them start it."""
        ...

    def one_ended(self, pulse: Pulse, incarnation: int) -> str:
        """Which of them has ended, and how; empty: none."""
        ...

    def have_ended(self, pulse: Pulse, incarnation: int) -> bool:
        """Whether all of them have; they are told to."""
        ...

    def close(self) -> None:
        """Give up what they hold here."""
        ...


class Nobody:
    """Followers of a server that is on this node alone: there are none."""

    watched: tuple[Key, ...] = ()

    def start(self, pulse: Pulse, incarnation: int) -> None:
        """Start none."""

    def one_ended(self, pulse: Pulse, incarnation: int) -> str:
        """Say that none has."""
        del pulse, incarnation
        return ""

    def have_ended(self, pulse: Pulse, incarnation: int) -> bool:
        """Say so of none."""
        del pulse, incarnation
        return True

    def close(self) -> None:
        """Do nothing: nothing is held."""


class ServerSlot(ABC):
    """Several incarnations may fill it one after the other; all answer on the same reserved port."""

    def __init__(
        self, role: str, name: str, seat: Seat, folder: Path, restarts: int, followers: Followers | None = None
    ) -> None:
        self.role = role
        self.name = name
        self.seat = seat
        self.folder = folder
        self.child: Child | None = None
        self.port = ReservedPort(seat.host, seat.ports)
        self._restarts = restarts
        self._followers = followers or Nobody()
        self._lost = ""  # a follower without which this incarnation was of no use
        self._incarnation = 0
        self._condemned = False
        self._permission: Future[bool] | None = None  # to start again; None: nothing is asked
        self._held = False

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{self.seat.host}:{self.port.number}"

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of its GPUs."""
        return ()

    @property
    def watched(self) -> tuple[Key, ...]:
        """The keys of the store that `keep_running` reads."""
        return (self.condemned, keys.server_ready(self.name), *self._followers.watched)

    @property
    def condemned(self) -> Key:
        """The key under which whoever asks the server gives it up."""
        return keys.server_condemned(self.name)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The server's command line."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The server's whole environment."""

    def last_error(self) -> str:
        """What the present incarnation has said of its end, on one line; empty: nothing that is known."""
        return ""

    def begin(self, pulse: Pulse) -> None:
        """Start the first incarnation."""
        self.start(pulse)

    def start(self, pulse: Pulse) -> None:
        """Start the next incarnation and publish where it will answer."""
        self._condemned, self._lost = False, ""
        self.child = Child(self.name, self.command(), self.environment(), self.log_path)
        member = Member(
            role=self.role,
            name=self.name,
            node=self.seat.node,
            host=self.seat.host,
            pid=self.child.pid,
            url=self.url,
            devices=self.devices,
            incarnation=self._incarnation,
        )
        pulse.post(keys.member(self.role, self.name), member.to_json())
        self._followers.start(pulse, self._incarnation)
        log.info(
            "%s=%s incarnation=%d pid=%d url=%s", self.role, self.name, self._incarnation, self.child.pid, self.url
        )

    def keep_running(self, pulse: Pulse) -> Failure | None:
        """Restart the server if it died, as soon as it may start; the failure if it died too often."""
        if self.child is None:
            return None
        if self._permission is not None:
            self._start_if_allowed(pulse, self._permission)
            return None
        exit_code = self.child.exit_code()
        if exit_code is None:
            self._end_if_useless(self.child, pulse)
            return None
        if not self._followers.have_ended(pulse, self._incarnation):
            return None
        cause = self._lost or describe_exit(exit_code)
        if self._incarnation >= self._allowed(pulse, exit_code):
            cause = self._with_last_error(f"{cause} {self._restarts_in_words(pulse)}")
            return from_child(self.role, self.name, pulse.moment, self.child, exit_code, cause)
        said = self._with_last_error(cause)
        log.warning("%s=%s pid=%d %s: restarting", self.role, self.name, self.child.pid, said)
        self._incarnation += 1
        self._permission = self._ask_permission(pulse)
        return None

    def _ask_permission(self, pulse: Pulse) -> Future[bool]:
        return pulse.ask(partial(try_to_start, name=self.name, incarnation=self._incarnation))

    def _start_if_allowed(self, pulse: Pulse, answer: Future[bool]) -> None:
        """Trainer ranks may have its GPU: then it is asked again at every beat, until they have left it."""
        if not answer.done():
            return
        if answer.exception() is None and answer.result():
            self._permission, self._held = None, False
            self.start(pulse)
            return
        if not self._held:
            log.warning(
                "%s=%s is held back: the trainer has its GPU, or the store does not answer", self.role, self.name
            )
        self._permission, self._held = self._ask_permission(pulse), True

    def _allowed(self, pulse: Pulse, exit_code: int) -> int:
        """Number of restarts.

        A server that has never answered is more likely set up wrongly, and gets a single one; none if it refused its
        command line, as it would again.
        """
        if pulse.value(keys.server_ready(self.name)) is not None:
            return self._restarts
        return 0 if exit_code == BAD_COMMAND_LINE else min(1, self._restarts)

    def close(self) -> None:
        """Give the port back."""
        self.port.close()
        self._followers.close()

    @property
    def log_path(self) -> Path:
        """The log of the present incarnation."""
        return AttemptFolder(self.folder).server_log(self.name, self._incarnation)

    def _end_if_useless(self, child: Child, pulse: Pulse) -> None:
        """End a server that has lost a follower, or that is condemned."""
        self._lost = self._lost or self._followers.one_ended(pulse, self._incarnation)
        if self._lost:
            child.signal(signal.SIGKILL)
        else:
            self._end_if_condemned(child, pulse)

    def _end_if_condemned(self, child: Child, pulse: Pulse) -> None:
        """End a server that gave its driver no answer: first ask for its stacks, and kill it at the next look."""
        if self._condemned:
            child.signal(signal.SIGKILL)
        elif pulse.value(self.condemned) == str(self._incarnation):
            self._condemned = True
            child.signal(STACKS)

    def _with_last_error(self, words: str) -> str:
        return f"{words}, {error}" if (error := self.last_error()) else words

    def _restarts_in_words(self, pulse: Pulse) -> str:
        if pulse.value(keys.server_ready(self.name)) is None:
            return f"before it answered for the first time (start {self._incarnation + 1})"
        return f"after {self._incarnation} restarts"
