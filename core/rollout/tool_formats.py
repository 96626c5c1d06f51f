"""How the model writes calls of tools: `rollout.tool_format`, a function of what it said that gives the calls in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.checks.tool_schema import tool_schemas
from core.sglang.tool_calls import tool_call_parser

BEGIN, END = "<tool_call>", "</tool_call>"
PLAIN = re.compile(rf"{BEGIN}(.*?)(?:{END}|\Z)", re.DOTALL)
FORM = f'{BEGIN}{{"name": ..., "arguments": {{...}}}}{END}'


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        error: why it cannot be read; the model is told. Empty: it can.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def plain(text: str) -> list[ToolCall]:
    """Each `<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>` in the text, in order."""
    return list(_plain(text))


def _plain(text: str) -> Iterator[ToolCall]:
    for match in PLAIN.finditer(text):
        inside = match[1].strip()
        if not match[0].endswith(END):
            yield ToolCall("", error=f"found {BEGIN} without {END}; wanted {FORM}")
            return
        try:
            call = json.loads(inside)
        except ValueError as error:
            yield ToolCall("", error=f"found what is no JSON ({error}); wanted {FORM}")
            continue
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            yield ToolCall("", error=f"found no name; wanted {FORM}")
        else:
            yield read(call["name"], call.get("arguments", call.get("parameters", {})))


def read(name: str, arguments: Any) -> ToolCall:
    """A call whose arguments are a mapping, or JSON text of one."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            return ToolCall(name, error=f"found arguments that are no JSON ({error}); wanted a mapping by name")
    if not isinstance(arguments, dict):
        return ToolCall(name, error=f"found arguments of the kind {type(arguments).__name__}; wanted a mapping by name")
    return ToolCall(name, arguments)


class ByEngine:
    """Calls as one of SGLang's parsers reads them."""

    def __init__(self, tool_format: str, tools: Sequence[str]) -> None:
        """Load the parser, which takes seconds.

        Args:
            tool_format: its name.
            tools: `rollout.tools`.
        Raises:
            ValueError: the SGLang installed here has no such parser.
        """
        self._name = tool_format
        self._parse = tool_call_parser(tool_format, tool_schemas(tools))

    def __call__(self, text: str) -> list[ToolCall]:
        calls, looks_like_one = self._parse(text)
        if looks_like_one and not calls:
            return [ToolCall("", error=f"found a call that cannot be read; wanted one in the format {self._name}")]
        return [read(name, arguments) for name, arguments in calls]
