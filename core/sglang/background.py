"""Threads that never hold up the end of the process: for calls that may hang where nobody can interrupt them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(act: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call it in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act(*arguments))
        except BaseException as error:  # whoever reads the future is told
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
