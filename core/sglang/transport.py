"""HTTP to one engine, with failures told apart: the engine is gone, it hangs, or it refused."""

from __future__ import annotations

import weakref
from typing import Any

import httpx

from core.sglang.errors import EngineDied, EngineError, EngineTimeout

NO_TLS = httpx.create_ssl_context(verify=False)  # once: each client would make its own, 0.3 ms
CLOSED_MEANWHILE = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
KEEPALIVE_S = 1.0  # of an unused connection: well below the 5 s after which the server closes it


class Transport:
    """Requests to one base URL.

    Proxies from the environment are ignored: an engine is a node-internal address. Synchronous requests, from any
    thread, share connections that stay open for KEEPALIVE_S; asynchronous ones open their own, so they may come from
    one event loop after another.
    """

    def __init__(self, base_url: str, api_key: str | None, connect_s: float, mock: Any = None) -> None:
        """Keep the address; no connection is opened yet.

        Args:
        connect_s: deadline for the connection; the deadline for the answer comes with each request.
        mock: an httpx transport for tests.
        """
        self.base_url = base_url.rstrip("/")
        self._connect_s = connect_s
        self._options: dict[str, Any] = {
            "base_url": self.base_url,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "trust_env": False,
            "verify": NO_TLS,
            "transport": mock,
        }
        client = httpx.Client(limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_S), **self._options)
        self._client = client
        weakref.finalize(self, client.close)  # an engine that was restarted has another; threads may still use this one

    def request(self, method: str, path: str, body: object = None, timeout_s: float = 60.0) -> httpx.Response:
        """The answer, whatever its status.

        Raises:
            EngineDied: no connection, or it broke.
            EngineTimeout: no answer within `timeout_s`.
        """
        try:
            try:
                return self._client.request(method, path, json=body, timeout=self._timeout(timeout_s))
            except CLOSED_MEANWHILE:
                return self._ask_again(method, path, body, timeout_s)
        except httpx.TransportError as error:
            raise self._lost(error, method, path, timeout_s) from error

    def _ask_again(self, method: str, path: str, body: object, timeout_s: float) -> httpx.Response:
        """Ask once more on a new connection: an engine that was only paused closes its idle ones when it wakes up, and
        a request that waited in one of them was never read. One that is gone refuses the new connection.
        """
        with httpx.Client(**self._options) as client:
            return client.request(method, path, json=body, timeout=self._timeout(timeout_s))

    def ask(self, method: str, path: str, body: object = None, timeout_s: float = 60.0) -> httpx.Response:
        """Send a request; raise EngineError unless the status is 200."""
        return self._checked(self.request(method, path, body, timeout_s))

    async def ask_async(self, method: str, path: str, body: object, timeout_s: float) -> httpx.Response:
        """Do what `ask` does, without blocking the event loop."""
        try:
            async with httpx.AsyncClient(timeout=self._timeout(timeout_s), **self._options) as client:
                return self._checked(await client.request(method, path, json=body))
        except httpx.TransportError as error:
            raise self._lost(error, method, path, timeout_s) from error

    def _timeout(self, timeout_s: float) -> httpx.Timeout:
        return httpx.Timeout(timeout_s, connect=min(self._connect_s, timeout_s))

    def _lost(self, error: httpx.TransportError, method: str, path: str, timeout_s: float) -> EngineDied:
        asked = f"{method} {self.base_url}{path}"
        if isinstance(error, httpx.TimeoutException):
            return EngineTimeout(f"{asked}: no answer within {timeout_s:g} s")
        return EngineDied(f"{asked}: {type(error).__name__}: {error}")

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            asked = f"{response.request.method} {self.base_url}{response.request.url.path}"
            raise EngineError(f"{asked}: status {response.status_code}: {response.text[:2000]}")
        return response
