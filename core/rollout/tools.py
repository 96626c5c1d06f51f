"""Tools: a user's plain, typed functions, which the model calls and is answered by text, whatever they do."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from core.plugins import load_function, split_function
from core.processes.user_process import short
from core.rollout.limits import OutOfTime, limited
from core.rollout.tool_formats import ToolCall

MAX_RESULT_CHARACTERS = 10_000  # of one call, far more than a model should read
ERROR = "error: "


class Tools:
    """The functions of `rollout.tools`, by their names."""

    def __init__(self, paths: Sequence[str], timeout_s: float) -> None:
        """Load them, each file once.

        Raises:
            Wrong: (a ValueError) one cannot be loaded.
        """
        self._timeout_s = timeout_s
        self._functions: dict[str, Callable[..., Any]] = {}
        modules: dict[str, str] = {}
        for path in paths:
            place, name = split_function(path)
            if place in modules:
                function = getattr(sys.modules[modules[place]], name)
            else:
                function = load_function(path, "rollout.tools")
                modules[place] = function.__module__
            self._functions[name] = function

    async def call(self, call: ToolCall) -> str:
        """What the model is told: the result, or what went wrong, which begins with `error: `. Never raises."""
        if call.error:
            return ERROR + call.error
        function = self._functions.get(call.name)
        if function is None:
            return f"{ERROR}found no tool named {short(call.name)}; wanted one of {', '.join(self._functions)}"
        try:
            inspect.signature(function).bind(**call.arguments)
            result = await limited(function, self._timeout_s, **call.arguments)
            return _text(result)
        except OutOfTime:
            return f"{ERROR}no result within {self._timeout_s:g} s"
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit, too: other tasks share the process
            return f"{ERROR}{type(error).__name__}: {short(str(error))}"


def _text(result: Any) -> str:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_RESULT_CHARACTERS else text[:MAX_RESULT_CHARACTERS] + "..."
