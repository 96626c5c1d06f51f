"""Ports: bound first, then published, out of the site's range if it has one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

from core.processes.held_port import hold, lend


class NoFreePort(RuntimeError):
    """A range in which no port is free."""


class ReservedPort:
    """A port that is ours until `close`, though another process of ours will listen on it (`processes/held_port.py`).

    No other program that looks for a free port gets it, no other run, which reserves in this same way, and no other
    user, not even while our server is down.
    """

    def __init__(self, host: str, ports: range | None = None, *, lent: bool = False) -> None:
        """Bind a port of the range.

        Args:
        lent: a server that knows nothing of held ports will listen on it.
        Raises:
        NoFreePort: no port of the range is free on `host`.
        """
        self._socket = _bound(host, ports)
        (lend if lent else hold)(self._socket)
        self.number = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def listen(host: str, ports: range | None = None) -> socket.socket:
    """A socket that listens on a free port of the range (None: any).

    Raises:
        NoFreePort: no port of the range is free on `host`.
    """
    listener = _bound(host, ports)
    listener.listen(1024)
    return listener


def _bound(host: str, ports: range | None) -> socket.socket:
    for number in _candidates(ports):
        candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            candidate.bind((host, number))
        except OSError:
            candidate.close()
            if ports is None:
                raise
        else:
            return candidate
    assert ports is not None
    raise NoFreePort(
        f"ports {ports.start}-{ports.stop - 1} of {host}: found none free; wanted one: widen the site's port_range"
    )


def _candidates(ports: range | None) -> Iterator[int]:
    """All ports of the range, from a random one on: two runs that start together seldom meet."""
    if ports is None:
        yield 0
        return
    start = random.randrange(len(ports))
    yield from (ports[(start + offset) % len(ports)] for offset in range(len(ports)))
