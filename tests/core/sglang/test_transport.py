"""Connections to an engine: shared while they are fresh, never met when they are stale. A real socket, no engine."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.sglang.errors import EngineDied
from core.sglang.transport import Transport


class Server(ThreadingHTTPServer):
    """Counts connections; `/bye` closes its own after the answer, without saying so."""

    daemon_threads = True

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.asked: list[str] = []
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), Handler)

    def wait_closed(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.closed == number, 30), f"{self.closed} connections were closed"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.opened += 1

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        with self.server.changed:
            self.server.closed += 1
            self.server.changed.notify_all()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/never" or (self.path == "/once" and self.server.asked.count("/once") == 1):
            self.close_connection = True  # without an answer
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = self.path == "/bye"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join(30)


def transport(server: Server) -> Transport:
    return Transport(f"http://127.0.0.1:{server.server_port}", None, connect_s=5.0)


def test_requests_one_after_the_other_share_a_connection(server: Server) -> None:
    client = transport(server)
    for _ in range(3):
        client.ask("GET", "/")
    assert server.opened == 1


def test_a_connection_that_the_server_closed_is_not_used_again(server: Server) -> None:
    client = transport(server)
    for number in range(1, 4):
        client.ask("GET", "/bye")
        server.wait_closed(number)
    assert server.opened == 3


def test_a_connection_that_is_closed_under_a_request_is_replaced_once(server: Server) -> None:
    """As by an engine that was paused for so long that its idle connections ran out of time."""
    client = transport(server)
    client.ask("GET", "/")
    assert client.ask("GET", "/once").status_code == 200
    assert (server.opened, server.asked) == (2, ["/", "/once", "/once"])
    with pytest.raises(EngineDied):
        client.ask("GET", "/never")
    assert server.asked.count("/never") == 2


def test_threads_do_not_wait_for_each_other(server: Server) -> None:
    client = transport(server)
    together = threading.Barrier(4, timeout=30)

    def ask(_: int) -> int:
        together.wait()
        return client.ask("GET", "/").status_code

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [200] * 4


def test_a_client_that_nobody_has_any_more_leaves_no_connection(server: Server) -> None:
    client = transport(server)
    client.ask("GET", "/")
    del client
    gc.collect()
    server.wait_closed(1)


def test_a_server_that_is_gone_is_dead_also_over_an_open_connection(server: Server) -> None:
    client = transport(server)
    client.ask("GET", "/bye")
    server.wait_closed(1)
    server.server_close()
    with pytest.raises(EngineDied):
        client.ask("GET", "/")
