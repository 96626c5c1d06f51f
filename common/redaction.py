"""Secrets in texts that others will read: settings, command lines, environment variables.

Left out: secrets that look like ordinary words under an ordinary name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "(hidden)"
TELLING_NAME = re.compile(
    r"(?:^|[._-])(?:[a-z0-9_]*(?:api|access|private|secret|auth|ssh|signing)[_-]?key|[a-z0-9_]*(?:secret|passw(?:or)?d|passphrase"
    r"|credentials?)[a-z0-9_]*|(?:[a-z0-9_]*_)?(?:token|pat)|authorization|cookie)$|^[A-Z0-9_]*(?:KEY|TOKEN|PAT)$",
)
TELLING_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abps]-[\w-]{10,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=[Bb]earer )[\w.~+/-]+=*"
)

TELLING_PAIR = re.compile(
    r"""((?:\b|_)(?:api_?key|access_?key|secret|token|passw(?:or)?d)["']?\s*[:=]\s*["']?)(?!\(hidden\))[^\s"',}\]]+""",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a setting or a variable is, by its last name, one that holds a secret: `WANDB_API_KEY`, `hub_token`."""
    last = name.rpartition(".")[2]
    return bool(TELLING_NAME.search(last) or TELLING_NAME.search(last.lower()))


def redacted(name: str, value: Any) -> Any:
    """The value of a setting or variable, or `(hidden)`; lists and mappings are gone through."""
    if value in (None, "") or isinstance(value, bool | int | float):
        return value
    if is_secret(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: redacted(str(key), below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(name, below) for below in value]
    return redacted_text(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    """The text, with everything hidden that looks like a token, the password of an address or `api_key: value`."""
    return TELLING_PAIR.sub(rf"\1{HIDDEN}", TELLING_VALUE.sub(HIDDEN, text))


def redacted_words(words: Sequence[str]) -> list[str]:
    """A command line: `--set a.hub_token=…`, `--api-key …` and what looks like a token are hidden."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, equals, value = word.partition("=")
        option = word.startswith("-") and not equals
        if hide_next and not option:
            shown.append(HIDDEN)
        elif equals:
            shown.append(f"{name}={redacted(name.lstrip('-').replace('-', '_'), value)}")
        else:
            shown.append(redacted_text(word))
        hide_next = option and is_secret(word.lstrip("-").replace("-", "_"))
    return shown
