"""A conversation as the chat template writes it, cut into what the model says and what others say. Pure.

A template that does not mark the model's turns shows them by what it writes for the beginnings of a conversation: the
messages before a turn, with the generation prompt, end where the turn begins; the messages with it end where it ends.
That is so only where the template writes a beginning always alike, whatever follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common.mistake import Wrong
from core.pretrained.turns import SHOWN

Render = Callable[[Sequence[dict[str, Any]], bool], str]  # (messages, generation_prompt) -> text


class Piece(NamedTuple):
    """A stretch of the text. `role` is that of the first message in it."""

    text: str
    learnt: bool
    role: str


def turn_pieces(messages: Sequence[dict[str, Any]], render: Render, first: int = 0) -> list[Piece]:
    """The whole conversation in pieces, of which the turns of the assistant are learnt.

    Args:
        first: turns before this message are not learnt.
    Raises:
        Wrong: the template writes a beginning otherwise once more follows.
    """
    whole, place, said = render(messages, False), 0, 0
    pieces: list[Piece] = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or number < first:
            continue
        begin, end = _turn(messages[: number + 1], render, whole)
        pieces += [Piece(whole[place:begin], False, messages[said]["role"]), Piece(whole[begin:end], True, "assistant")]
        place, said = end, min(number + 1, len(messages) - 1)
    return [*pieces, Piece(whole[place:], False, messages[said]["role"])]


def last_turn_pieces(messages: Sequence[dict[str, Any]], render: Render) -> list[Piece]:
    """A conversation that ends with a turn of the assistant, of which only that turn is learnt.

    Raises:
        Wrong: the template does not write its generation prompt before the turn.
    """
    whole = render(messages, False)
    begin, end = _turn(messages, render, whole)
    return [Piece(whole[:begin], False, messages[0]["role"]), Piece(whole[begin:end], True, "assistant")]


def _turn(messages: Sequence[dict[str, Any]], render: Render, whole: str) -> tuple[int, int]:
    """The places where the last of these messages begins and ends in the whole text."""
    if len(messages) == 1:
        raise Wrong("a conversation that begins with the assistant", "a message before it", "leave out such rows")
    through, before = render(messages, False), render(messages[:-1], True)
    if not whole.startswith(through):
        raise Wrong(
            f"a chat template that writes an earlier turn anew once more follows: {_difference(through, whole)}",
            "one that leaves the turns as they were said",
            "set rollout.rewritten_past to split, which makes each turn a sample of its own with the past that the "
            "template writes then, or give another template as data.chat_template",
        )
    if not through.startswith(before):
        raise Wrong(
            f"a chat template that writes a turn otherwise than its generation prompt begins it: "
            f"{_difference(before, through)}",
            "a turn that begins with the generation prompt, as the model will say it",
            "give another template as data.chat_template, or write into the row what the template asks for",
        )
    return len(before), len(through)


def _difference(one: str, other: str) -> str:
    """'...<think>' becomes '...An answer'."""
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, place - SHOWN // 2)
    return f"{one[begin : begin + SHOWN]!r} becomes {other[begin : begin + SHOWN]!r}"
