from __future__ import annotations

import socket
from contextlib import closing

import pytest

from launchers.ports import NoFreePort, ReservedPort, listen

HOST = "127.0.0.1"


def bind(port: int, reuse: bool) -> socket.socket:
    candidate = socket.socket()
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
    try:
        candidate.bind((HOST, port))
    except OSError:
        candidate.close()
        raise
    return candidate


def test_a_reserved_port_goes_to_our_server_only_and_as_often_as_it_restarts() -> None:
    reserved = ReservedPort(HOST)
    with pytest.raises(OSError, match="in use"):
        bind(reserved.number, reuse=False)
    for _ in range(2):
        with closing(bind(reserved.number, reuse=True)) as server:
            server.listen()
            with pytest.raises(OSError, match="in use"):
                bind(reserved.number, reuse=True)
    reserved.close()
    bind(reserved.number, reuse=False).close()


def test_two_runs_do_not_get_the_same_port() -> None:
    """The second one reserves as the first did; the kernel refuses until the range has another."""
    first = ReservedPort(HOST)
    span = range(first.number, first.number + 1)
    with pytest.raises(NoFreePort, match=rf"ports {first.number}-{first.number} of 127.0.0.1: found none free"):
        ReservedPort(HOST, span)
    with pytest.raises(NoFreePort):
        listen(HOST, span)
    first.close()
    ReservedPort(HOST, span).close()


def test_ports_come_from_the_range() -> None:
    span = range(23450, 23470)
    reserved = [ReservedPort(HOST, span) for _ in range(10)]
    assert {port.number for port in reserved} <= set(span)
    assert len({port.number for port in reserved}) == 10
    for port in reserved:
        port.close()


def test_a_listener_answers_at_once() -> None:
    with closing(listen(HOST)) as listener:
        socket.create_connection(listener.getsockname(), 5).close()
