"""A server that scores responses as the tiny runs' own reward does, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Judge(ThreadingHTTPServer):
    """Scores depend on every character of the response.

    Attributes:
        asked: body of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/score"


def score(response: str) -> float:
    """What the judge answers."""
    return (sum(map(ord, response)) % 101) / 100


@contextmanager
def judging() -> Iterator[Judge]:
    """A judge that answers until the end of the block."""
    judge = Judge()
    thread = threading.Thread(target=judge.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        judge.shutdown()
        judge.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(score(asked["response"])).encode())

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
