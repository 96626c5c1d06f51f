"""A row's prompt as chat messages: whatever shape it has in the file, what a chat template gets has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from common.mistake import Wrong, show

Message = dict[str, Any]
WANTED = "text, or a list of messages with role and content"


def messages_of(content: Any) -> list[Message]:
    """The messages that a row's prompt stands for.

    Text is one message of the user, but for a list of messages stored as JSON text. Parts of text are joined, and
    keys without a value, which a table has for every message, are left out.

    Raises:
        Wrong: the prompt is something else, or the content of a message is.
    """
    read = _serialised(content) if isinstance(content, str) else content
    if isinstance(read, str) and read:
        return [{"role": "user", "content": read}]
    if not is_message_list(read):
        raise Wrong(f"{show(content)} as the prompt", WANTED, "name the key of the prompt, or correct the row")
    return [_message(number, message) for number, message in enumerate(read, start=1)]


def is_message_list(value: Any) -> bool:
    """Whether the value is a list of mappings with role and content."""
    return isinstance(value, list) and bool(value) and all(_has_both(one) for one in value)


def _has_both(value: Any) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def _serialised(text: str) -> Any:
    """The messages in a text that is a JSON list of them; else the text."""
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if is_message_list(value) else text
    return text


def _message(number: int, message: Mapping[str, Any]) -> Message:
    filled = _without_empty(message)
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or not role:
        remedy = "correct the row"
        raise Wrong(f"{show(role)} as the role of message {number}", "text, such as user or assistant", remedy)
    return {**filled, "role": role, "content": _text(number, content, bool(filled.get("tool_calls")))}


def _text(number: int, content: Any, calls_tools: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and calls_tools:
        return ""
    if isinstance(content, list) and content:
        parts = [_part(one) for one in content]
        if None not in parts:
            return "".join(part or "" for part in parts)
        kinds = ", ".join(str(one.get("type", "?")) if isinstance(one, Mapping) else show(one) for one in content)
        raise Wrong(f"parts of other kinds ({kinds}) in message {number}", "parts of type text", "leave them out")
    found = f"{show(content)} as the content of message {number}"
    raise Wrong(found, "text, or a list of parts of type text", "correct the row")


def _part(part: Any) -> str | None:
    """The text of a part; None: it is of another kind."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
    return text if isinstance(text, str) else None


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_empty(below) for key, below in value.items() if below is not None}
    return [_without_empty(below) for below in value] if isinstance(value, list) else value
