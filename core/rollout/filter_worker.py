"""The process of a user's own filter: `python -P -m core.rollout.filter_worker SOCKET_FD PARENT_PID`.

What it and its owner say to each other is told in `core.rollout.filter_process`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from core.config.sections.rollout import RolloutConfig
from core.doors import FILTER
from core.processes import plain
from core.processes.user_process import READY, connection_to_owner, short
from core.reward.sample import ScoredSample
from core.rollout.filter_process import NO_ANSWER
from core.rollout.places import describe, place_of

REJECTED = "rejected"  # where the filter gives no reason


def serve(connection: Connection) -> None:
    """Answer groups until the other side closes."""
    try:
        config = RolloutConfig.model_validate(plain.load(connection.recv_bytes()))
        function = FILTER.build(config.filter, config.filter_options)
        place = place_of(function)
    except Exception as error:
        connection.send_bytes(f"{type(error).__name__}: {short(str(error))}".encode("utf-8", "replace"))
        return
    connection.send_bytes(READY.encode())
    own_pid = os.getpid()
    with asyncio.Runner() as runner:
        while True:
            try:
                group = [ScoredSample(**fields) for fields in plain.load(connection.recv_bytes())]
            except EOFError:
                return
            answer = judge(function, group, place, runner)
            if os.getpid() != own_pid:  # a child that the function forked, whose error came as far as this
                os._exit(1)
            connection.send_bytes(json.dumps(answer).encode("ascii"))


def judge(
    function: Callable[[list[ScoredSample]], Any], group: list[ScoredSample], place: str, runner: asyncio.Runner
) -> tuple[str, str]:
    """Why the group is rejected, and why there is no answer; whatever goes wrong becomes the latter."""
    try:
        made = function(group)
        made = runner.run(_awaited(made)) if inspect.isawaitable(made) else made
    except BaseException as error:  # SystemExit of a user's function must not end the process
        return NO_ANSWER, describe(error, place)
    if isinstance(made, str) and made.strip():
        return made, ""
    if getattr(made, "ndim", None) == 0:  # numpy's and torch's truths
        made = made.item()
    if isinstance(made, bool):
        return ("" if made else REJECTED), ""
    found = f"a {type(made).__name__} ({short(repr(made))})"
    return NO_ANSWER, f"found {found}; wanted True, False or the reason why not ({place})"


async def _awaited(made: Any) -> Any:
    return await made


if __name__ == "__main__":
    with connection_to_owner() as connection_of_this:
        serve(connection_of_this)
