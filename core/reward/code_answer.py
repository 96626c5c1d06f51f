"""The program in a response: its last block of Python behind the thinking."""

from __future__ import annotations

import re

from core.reward.answers import after_thinking

BLOCK = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)^[ \t]*(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
PYTHON = {"python", "python3", "py", "py3", "pypy", "pypy3"}


def code_of(response: str) -> str | None:
    """The last closed block that is called Python; of blocks without a language the last; without blocks the text.

    Blocks of other languages (an example's output, a command) do not count. None: there is no program, as the thinking
    has not ended, or a block has begun and is cut off.
    """
    text = after_thinking(response)
    blocks = [(one["language"].lower(), one["code"]) for one in BLOCK.finditer(text)]
    named = [code for language, code in blocks if language in PYTHON]
    unnamed = [code for language, code in blocks if not language]
    if named or unnamed:
        return (named or unnamed)[-1]
    return None if blocks or FENCE.search(text) or not text.strip() else text
