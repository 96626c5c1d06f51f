"""Places in a user's code, where it stands, raises or waits: `agent.py:12 in generate`, for messages."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.processes.user_process import short


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def place_of(function: Any) -> str:
    """`agent.py:12 in generate`, of a function, one with bound options, or an object that is called."""
    while hasattr(function, "func"):
        function = function.func
    code = getattr(function, "__code__", None) or type(function).__call__.__code__
    return f"{Path(code.co_filename).name}:{code.co_firstlineno} in {code.co_name}"


def describe(error: BaseException, place: str) -> str:
    """`KeyError: 'x' (agent.py:12 in generate)`: the last line of the user's own file, if it came to that."""
    return f"{type(error).__name__}: {short(str(error))} ({raised_at(error, place)})"


def raised_at(error: BaseException, place: str) -> str:
    """The last line of the user's own file in its traceback."""
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    return _last_of(frames, place)


def waits_at(coroutine: Any, place: str) -> str:
    """The line of the user's own file at which a coroutine waits."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return _last_of(frames, place)


def _last_of(frames: Sequence[tuple[str, int | None, str]], place: str) -> str:
    """The last frame in the file of `place`; without one, `place`."""
    own = [frame for frame in frames if Path(frame[0]).name == place.partition(":")[0]]
    return f"{Path(own[-1][0]).name}:{own[-1][1]} in {own[-1][2]}" if own else place
