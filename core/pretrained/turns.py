"""What others say in a dialogue, as the chat template writes it: text that is appended to what the model has said.

A dialogue grows at its end only. So the template is shown a stand-in for the model's turn, and what it writes behind
that is what follows the real one, whose tokens stay as they were sampled. Templates that write earlier turns in another
way than the model said them (most leave out the thinking) are found by comparing two renderings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from common.mistake import Wrong

Message = dict[str, Any]
Render = Callable[..., str]  # (messages, generation_prompt=True) -> text

ASKED: Message = {"role": "user", "content": "What is this?"}
SAID = "What the model said stands here."
ANSWERED = "This is what others say."
ANSWERS = ("An answer.", "<think>\nA thought.\n</think>\n\nAn answer.")
SHOWN = 40  # characters of a template's text in a message


def following(render: Render, others: Sequence[Message]) -> str:
    """The text behind a turn of the model, up to where its next one begins: its end, and what others say.

    Args:
        render: messages -> text.
        others: at least one message.
    Raises:
        Wrong: the template does not write one turn after the other.
    """
    text = render([ASKED, {"role": "assistant", "content": SAID}, *others])
    if text.count(SAID) != 1:
        found = f"a chat template that writes a turn of the model {text.count(SAID)} times"
        raise Wrong(found, "one that writes each turn once", "give another as data.chat_template")
    return text.rpartition(SAID)[2]


def without_double_end(said: Sequence[int], following: Sequence[int]) -> list[int]:
    """What follows the model's tokens, less an end of turn (or a beginning of the next) that it said itself."""
    double = bool(said) and bool(following) and said[-1] == following[0]
    return list(following[double:])


def refuse_silence(render: Render, role: str) -> None:
    """Refuse a template that leaves out what this role says, or fails on it.

    Raises:
        Wrong: it does.
    """
    wanted, remedy = f"one that writes messages of the role {role}", "give one as data.chat_template"
    try:
        text = following(render, [answer(role)])
    except Wrong:
        raise
    except Exception as error:  # a template, or what it calls, may raise anything
        raise Wrong(f"a chat template that fails on a message of the role {role}: {error}", wanted, remedy) from error
    if ANSWERED not in text:
        raise Wrong(f"a chat template that leaves out what a message of the role {role} says", wanted, remedy)


def refuse_closed_prompt(render: Render) -> None:
    """Refuse a template that lets nobody but the model speak after a prompt.

    Raises:
        Wrong: it writes a prompt otherwise when another message follows, such as one without `add_generation_prompt`.
    """
    before, after = render([ASKED], False), render([ASKED, answer("user")])
    if not after.startswith(before):
        found = f"a chat template that ends a prompt with {before[-SHOWN:]!r}, whether or not the model speaks next"
        raise Wrong(found, "one that heeds add_generation_prompt", "give another as data.chat_template")


def rewritten(render: Render, role: str) -> tuple[str, str] | None:
    """What the model said, and how the template writes it once another message follows; None: in the same way.

    Args:
        role: of the message that follows.
    """
    for said in ANSWERS:
        seen = render([ASKED]) + said
        later = render([ASKED, {"role": "assistant", "content": said}, answer(role)])
        if not later.startswith(seen):
            place = next(i for i, (a, b) in enumerate(zip(seen, later + "\0", strict=False)) if a != b)
            begin = max(0, place - SHOWN // 2)
            return seen[begin : begin + SHOWN], later[begin : begin + SHOWN]
    return None


def answer(role: str, content: str = ANSWERED, name: str = "tool", call: str = "call00000") -> Message:
    """A message of another than the model, with all that templates ask for."""
    if role != "tool":
        return {"role": role, "content": content}
    return {"role": role, "content": content, "name": name, "tool_call_id": call}
