"""Text of unknown origin, made safe to show: a response must not drive the reader's terminal."""

from __future__ import annotations

CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def visible(text: str) -> str:
    """Control characters as pictures (an escape as ␛); line ends and tabs as they are."""
    return text.translate(CONTROL_PICTURES)
