"""What a chat template made of a prompt's messages: what it wrote around them, and what it left out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """The text of a prompt without the content of its messages.

    Attributes:
        added: what stands before, between and behind the contents, in order.
        dropped: "the content of message 2 (system)".
    """

    added: tuple[str, ...]
    dropped: tuple[str, ...]


def template_frame(text: str, messages: Sequence[Mapping[str, Any]]) -> Frame:
    """Take the contents of the messages out of the rendered text, one after the other."""
    added, dropped, place = [], [], 0
    for number, message in enumerate(messages, start=1):
        content = str(message["content"]).strip()
        found = text.find(content, place)
        if found >= 0:
            added.append(text[place:found])
            place = found + len(content)
        elif content not in text:
            dropped.append(f"the content of message {number} ({message['role']})")
        for key, value in message.items():
            texts = [] if key in ("role", "content") else list(_texts(value))
            if texts and not any(one in text for one in texts):
                dropped.append(f"{key} of message {number} ({message['role']})")
    return Frame((*added, text[place:]), tuple(dropped))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, Mapping):
        yield from (text for below in value.values() for text in _texts(below))
    elif isinstance(value, list | tuple):
        yield from (text for below in value for text in _texts(below))
