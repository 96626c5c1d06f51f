"""The place of the answer in a response: behind the thinking, in the last box, or behind a phrase that announces it.

Shared by the rewards that read an answer, so that all read the same one.
"""

from __future__ import annotations

import re

BOX = re.compile(r"\\f?boxed\s*")
JOINED = re.compile(r"\s*\$*\s*(?:,|;|and|or|,\s*and|,\s*or)?\s*\$*\s*")
END_CHARACTERS = 300  # of a response: an answer before them does not count for DAPO
ANSWER = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)
ANNOUNCED = re.compile(r"(?:final\s+)?answer\s*(?:is|:|=)\s*(?P<answer>[^\n]+)", re.IGNORECASE)


def after_thinking(text: str) -> str:
    """The text behind the last `</think>`; nothing, where thinking began and did not end."""
    _, end, rest = text.rpartition("</think>")
    if end:
        return rest
    return "" if "<think>" in text else text


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}`; boxes with nothing but "and", "or" or a comma between them are one answer.

    None: there is no box. An empty text: the last one is empty, or is not closed.
    """
    found: list[str] = []
    end = 0
    for match in BOX.finditer(text):
        if match.start() < end:  # a box within a box
            continue
        if found and not JOINED.fullmatch(text[end : match.start()]):
            found.clear()
        content, end = _content(text, match.end())
        found.append(content)
    if not found:
        return None
    return ", ".join(found) if all(found) else ""


def boxed_after_thinking(text: str) -> str | None:
    """What stands in the last box behind thinking that has ended, as DeepScaleR wants it; None: there is none."""
    return boxed(after_thinking(text)) if "</think>" in text else None


def behind_answer(text: str) -> str:
    """What follows the last "Answer:" in the last 300 characters, or a box in it, as DAPO wants it; empty: nothing."""
    found = ANSWER.findall(text[-END_CHARACTERS:])
    answer = "" if not found else str(found[-1]).strip()
    return boxed(answer) or answer


def announced(text: str) -> str | None:
    """What follows the last "answer is" or "answer:" in its line, without marks around it; None: nothing does."""
    matches = list(ANNOUNCED.finditer(text))
    return matches[-1]["answer"].strip(" \t*_.") if matches else None


def _content(text: str, start: int) -> tuple[str, int]:
    """The group that begins at `start`, and where it ends; without a brace, the next word."""
    if not text.startswith("{", start):
        word = re.compile(r"[^\s$.,;]*").match(text, start)
        assert word is not None
        return word[0], word.end()
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return text[start + 1 : place].strip(), place + 1
    return "", len(text)
