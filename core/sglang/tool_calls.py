"""SGLang's parsers of tool calls, by their names. They need no GPU and no server, but import much: seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.mistake import Wrong

Calls = list[tuple[str, str]]  # name, and arguments as JSON text


def tool_call_parser(name: str, schemas: Sequence[Mapping[str, Any]]) -> Callable[[str], tuple[Calls, bool]]:
    """A function of a text that gives the calls in it, and whether the text looks as if it had any.

    Args:
        name: as of SGLang's option tool_call_parser.
        schemas: of the tools. Calls of others are given, too, where this SGLang can do that.
    Raises:
        Wrong: (a ValueError) there is no such parser.
    """
    os.environ.setdefault("SGLANG_FORWARD_UNKNOWN_TOOLS", "1")
    from sglang.srt.entrypoints.openai.protocol import Tool
    from sglang.srt.function_call.function_call_parser import FunctionCallParser

    known = FunctionCallParser.ToolCallParserEnum
    if name not in known:
        found = f"rollout.tool_format {name}, which the SGLang installed here does not have"
        raise Wrong(found, f"one of its parsers: {', '.join(sorted(known))}", "choose one of them, or plain")
    parser = FunctionCallParser([Tool(**schema) for schema in schemas], name)

    def parse(text: str) -> tuple[Calls, bool]:
        try:
            _, calls = parser.parse_non_stream(text)
        except Exception:  # of a parser, on what a model made up
            return [], True
        return [(call.name or "", call.parameters) for call in calls], parser.has_tool_call(text)

    return parse
