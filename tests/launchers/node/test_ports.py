from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import closing

import pytest

from core.processes.held_port import take
from launchers.node.ports import NoFreePort, ReservedPort, listen

HOST = "127.0.0.1"
NOBODY = 65534
REUSE = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)


def bind(port: int, options: Sequence[int] = (), host: str = HOST) -> socket.socket:
    candidate = socket.socket()
    for option in options:
        candidate.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        candidate.bind((host, port))
    except OSError:
        candidate.close()
        raise
    return candidate


def serve_once(port: int) -> None:
    """A server that is asked something and ends first: its connection lingers."""
    with closing(take(HOST, port)) as server:
        server.listen()
        with socket.create_connection((HOST, port)), server.accept()[0] as answer:
            answer.close()


def another_user_gets(port: int) -> bool:
    """Whether a process of another user can listen there, by any option and address."""
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for options in ((), REUSE[:1], REUSE[1:], REUSE):
            for host in (HOST, "0.0.0.0"):
                try:
                    bind(port, options, host).listen()
                except OSError:
                    continue
                os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_a_reserved_port_goes_to_our_server_only_and_as_often_as_it_restarts() -> None:
    reserved = ReservedPort(HOST)
    for options in ((), REUSE[:1]):
        with pytest.raises(OSError, match="in use"):
            bind(reserved.number, options)
    for _ in range(2):
        serve_once(reserved.number)
    with closing(take(HOST, reserved.number)) as server:
        server.listen()
        with pytest.raises(OSError, match="in use"):
            bind(reserved.number, REUSE[:1])
    reserved.close()
    bind(reserved.number, REUSE[:1]).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_never_gets_it() -> None:
    """Before our server is up, while it serves, between two of its lives: whoever answers there is told the key."""
    reserved = ReservedPort(HOST)
    assert not another_user_gets(reserved.number)
    with closing(take(HOST, reserved.number)) as server:
        server.listen()
        assert not another_user_gets(reserved.number)
    serve_once(reserved.number)
    assert not another_user_gets(reserved.number)
    reserved.close()
    assert another_user_gets(reserved.number)


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


def test_a_lent_port_is_given_to_torchs_store_as_often_as_that_begins_anew_and_chosen_for_nobody() -> None:
    from torch.distributed import TCPStore  # here: the other tests need no torch

    lent = ReservedPort(HOST, lent=True)
    with pytest.raises(OSError, match="in use"):
        bind(lent.number)
    for _ in range(2):
        store = TCPStore(HOST, lent.number, is_master=True, wait_for_workers=False)
        client = TCPStore(HOST, lent.number, is_master=False)
        client.set("met", "yes")
        assert store.get("met") == b"yes"
        del client, store
    lent.close()
