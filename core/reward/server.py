"""A reward pool behind HTTP: what the trainers of other nodes have their samples scored by.

The server knows nothing of steps or runs. Several clients may use it at once; their samples share one queue. The
samples of a client that goes away are dropped from it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from concurrent.futures import Future

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from core.reward.pool import RewardPool
from core.reward.remote_messages import HEARTBEAT, HEARTBEAT_S, dump_score, load_samples
from core.reward.rewards import CLOSED
from core.reward.sample import Score


def reward_app(pool: RewardPool, key: str) -> Starlette:
    """The ASGI application.

    Args:
        pool: open, and open for as long as the application serves.
        key: what every request must carry.
    """
    server = RewardServer(pool, key)
    return Starlette(
        routes=[Route("/health", server.health, methods=["GET"]), Route("/score", server.score, methods=["POST"])]
    )


class RewardServer:
    """The two requests that are answered."""

    def __init__(self, pool: RewardPool, key: str) -> None:
        self._pool = pool
        self._expected = f"Bearer {key}".encode()

    async def health(self, request: Request) -> Response:
        """Answer that samples can be scored, with the number of scoring processes."""
        if not self._has_key(request):
            return refused()
        return JSONResponse({"num_workers": self._pool.config.num_workers})

    async def score(self, request: Request) -> Response:
        """Scores, each as soon as it is there."""
        if not self._has_key(request):  # before anything of the body is read
            return refused()
        try:
            samples = load_samples(await request.body())
        except ValueError as error:
            return PlainTextResponse(f"the request cannot be read: {error}", 400)
        futures = [self._pool.submit(sample) for sample in samples]
        return StreamingResponse(scores(futures), media_type="application/x-ndjson")

    def _has_key(self, request: Request) -> bool:
        return hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected)


async def scores(futures: list[Future[Score]]) -> AsyncIterator[bytes]:
    """Lines of an answer; ends early if the pool is closed, and drops what is left if the client goes away."""
    waiting = {asyncio.wrap_future(future): index for index, future in enumerate(futures)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            found = [(waiting.pop(future), future.result()) for future in done]
            lines = [dump_score(index, score) for index, score in found if score.failure != CLOSED]
            yield b"".join(lines) if lines else HEARTBEAT
            if len(lines) < len(found):
                return
    finally:
        for future in waiting:
            future.cancel()


def refused() -> Response:
    """The answer to whoever is not of this run."""
    return PlainTextResponse("wanted Authorization: Bearer and the run's key", 401)
