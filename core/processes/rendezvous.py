"""Who is there: every process publishes itself in one TCPStore, and finds the others in it.

The store is a `torch.distributed.TCPStore` served by the node agent of the first node. Its keys, which are all in
`core.processes.keys`, are prefixed with the attempt, so a late process of an earlier attempt cannot be mistaken for one
of this attempt. A TCPStore answers whoever reaches its port: every value that is written here carries a signature made
with the run's key, and one without it is refused. Nothing read here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore

from common.waiting import wait_until
from core.processes import keys
from core.processes.keys import Key

STORE_TIMEOUT_S = 60.0  # one request to the store, not the wait for a member


class RendezvousForged(RuntimeError):
    """A value in the store was not written by this run."""


class RendezvousTimeout(RuntimeError):
    """Some members did not appear in time; the message names them."""


@dataclass(frozen=True)
class Address:
    """Address at which the store listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read back what `str()` wrote.

        Raises:
            ValueError: if the text is not host:port.
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"store address {text!r}: wanted host:port")
        return cls(host, int(port))


@dataclass(frozen=True)
class Member:
    """What a process says of itself. `incarnation` counts restarts of the same name."""

    role: str  # agent, trainer, engine
    name: str  # unique within the role, e.g. "0" for trainer rank 0 or "node0-engine1"
    node: int
    host: str
    pid: int
    url: str = ""
    devices: tuple[str, ...] = ()  # GPU UUIDs, empty on a CPU
    incarnation: int = 0

    def to_json(self) -> str:
        """Text for the store, under `keys.member`."""
        return json.dumps(asdict(self))


class Rendezvous:
    """A client of the store (and, given a listener, its server). Collective: none; every call is independent."""

    def __init__(self, address: Address, attempt: int, secret: str, *, listener: socket.socket | None = None) -> None:
        """Connect to the store, or serve it.

        Args:
        secret: the run's key; every process of the run has it, nobody else.
        listener: a listening socket on `address`: serve the store there, and own the socket from now on.
        """
        self._server = TCPStore(
            address.host,
            address.port,
            is_master=listener is not None,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
            master_listen_fd=listener.detach() if listener is not None else None,
        )
        self.address = address
        self.secret = secret
        self.store = PrefixStore(f"attempt{attempt}", self._server)

    def publish(self, member: Member) -> None:
        """Make this process known, or replace what its earlier incarnation published."""
        self.set(keys.member(member.role, member.name), member.to_json())

    def lookup(self, role: str, name: str) -> Member | None:
        """The member of that name, or None while it has not published itself."""
        text = self.get(keys.member(role, name))
        if text is None:
            return None
        fields = json.loads(text)
        return Member(**{**fields, "devices": tuple(fields["devices"])})

    def wait(self, role: str, names: Sequence[str], deadline_s: float) -> list[Member]:
        """Wait until all of these members are known.

        Raises:
            RendezvousTimeout: after deadline_s, naming who is missing.
        """
        found: dict[str, Member] = {}

        def complete() -> bool:
            for name in names:
                if name not in found and (member := self.lookup(role, name)) is not None:
                    found[name] = member
            return len(found) == len(names)

        if not wait_until(complete, deadline_s):
            missing = ", ".join(name for name in names if name not in found)
            raise RendezvousTimeout(
                f"{len(found)} of {len(names)} {role} processes appeared within {deadline_s:.0f} s; "
                f"missing: {missing}. See their logs in the attempt's folder."
            )
        return [found[name] for name in names]

    def set(self, key: Key, value: str) -> None:
        """Set a text under a key; on return every process sees it.

        A TCPStore sends a value without waiting for an answer. It takes the requests of one connection in their order,
        so the answer to a second one says that the value is there.
        """
        self.store.set(key, f"{self._signature(key, value)} {value}")
        self.store.check([key])

    def get(self, key: Key) -> str | None:
        """The text under a key, or None where there is none; never waits.

        Raises:
            RendezvousForged: the value does not carry this run's signature.
        """
        return self._checked(key, bytes(self.store.get(key))) if self.has(key) else None

    def has(self, key: Key) -> bool:
        """Whether there is anything under a key; never waits."""
        return bool(self.store.check([key]))

    def get_many(self, wanted: Sequence[Key]) -> list[str]:
        """The texts under keys that are known to be there, in one request."""
        found = self.store.multi_get(list(wanted))
        return [self._checked(key, bytes(raw)) for key, raw in zip(wanted, found, strict=True)]

    def add(self, key: Key, amount: int = 1) -> int:
        """Add to a counter that starts at 0 and return the new value; atomic over all processes."""
        return int(self.store.add(key, amount))

    def any_of(self, question: Key, flag: bool, num_ranks: int, deadline_s: float) -> bool:
        """Whether at least one of the ranks says yes; for ranks that have no process group yet.

        Raises:
            RendezvousTimeout: not all have answered after deadline_s.
        Collective: those ranks, once per question.
        """
        yes, answers = keys.votes(question)
        self.add(yes, int(flag))
        self.add(answers)
        if not wait_until(lambda: self.add(answers, 0) >= num_ranks, deadline_s):
            raise RendezvousTimeout(
                f"{self.add(answers, 0)} of {num_ranks} trainer ranks answered {question} within "
                f"{deadline_s:.0f} s. See their logs in the attempt's folder."
            )
        return self.add(yes, 0) > 0

    def _signature(self, key: Key, value: str) -> str:
        return hmac.new(self.secret.encode(), f"{key}\0{value}".encode(), hashlib.sha256).hexdigest()

    def _checked(self, key: Key, raw: bytes) -> str:
        signature, _, value = raw.decode(errors="replace").partition(" ")
        if not hmac.compare_digest(signature.encode(), self._signature(key, value).encode()):
            raise RendezvousForged(
                f"{key} in the store at {self.address} was not written by this run: another run or another user "
                "reaches its port; choose a port range of your own in the site file"
            )
        return value
