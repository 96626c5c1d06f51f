"""Rows made into prompts, and the order in which they are drawn.

All rows are rendered and tokenised at the start: a row that is too long or unusable is known before the first step.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from core.config.schema import DataConfig
from core.data.rows import Row, load_rows
from core.samples import Prompt

logger = logging.getLogger(__name__)


class PromptTokenizer(Protocol):
    """What is needed of `core.pretrained.tokenizer.Tokenizer`."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]: ...

    def render(
        self, messages: Sequence[dict[str, Any]], system_prompt: str | None = None, template: str | None = None
    ) -> str: ...


class PromptSource:
    """An endless, repeatable sequence of prompts over the usable rows.

    `prompt(position)` depends on nothing but its argument, so a resumed run needs the cursor and no random state.
    """

    def __init__(self, prompts: Sequence[Prompt], num_skipped: int, shuffle: bool, seed: int) -> None:
        self._prompts = prompts
        self._order = lru_cache(maxsize=2)(_epoch_order)
        self.num_skipped = num_skipped  # rows longer than max_prompt_tokens
        self.shuffle = shuffle
        self.seed = seed

    def __len__(self) -> int:
        """Prompts in one epoch."""
        return len(self._prompts)

    def prompt(self, position: int) -> Prompt:
        """The prompt at an absolute position; each epoch of `len(self)` positions has an order of its own."""
        if position < 0:
            raise IndexError(f"prompt position {position}; wanted 0 or more")
        epoch, index = divmod(position, len(self._prompts))
        if self.shuffle:
            index = self._order(len(self._prompts), self.seed + epoch)[index]
        return self._prompts[index]


def build(config: DataConfig, tokenizer: PromptTokenizer) -> PromptSource:
    """Load, render and tokenise the rows of `config`.

    Raises:
        ValueError: the source is unusable (see `load_rows`), a row lacks a key or holds no prompt, or every row is
            longer than `config.max_prompt_tokens`.
    """
    template = _read_template(config)
    rows = load_rows(config)
    prompts = [_prompt(index, row, config, tokenizer, template) for index, row in enumerate(rows)]
    usable = [prompt for prompt in prompts if len(prompt.tokens) <= config.max_prompt_tokens]
    lengths = [len(prompt.tokens) for prompt in prompts]
    num_skipped = len(prompts) - len(usable)
    if not usable:
        raise ValueError(
            f"all {len(prompts)} prompts are longer than data.max_prompt_tokens = {config.max_prompt_tokens}: they "
            f"have {min(lengths)} to {max(lengths)} tokens; raise it, or check prompt_key and the chat template"
        )
    logger.info("data rows=%d skipped=%d longest_tokens=%d", len(prompts), num_skipped, max(lengths))
    return PromptSource(usable, num_skipped, config.shuffle, config.seed)


def _epoch_order(num_prompts: int, seed: int) -> list[int]:
    order = list(range(num_prompts))
    random.Random(seed).shuffle(order)
    return order


def _read_template(config: DataConfig) -> str | None:
    if config.chat_template is None:
        return None
    file = Path(config.chat_template)
    if not file.is_file():
        raise ValueError(
            f"data.chat_template is {str(file)!r}: no such file (looked in {Path.cwd()}): correct the path"
        )
    return file.read_text(encoding="utf-8")


def _prompt(index: int, row: Row, config: DataConfig, tokenizer: PromptTokenizer, template: str | None) -> Prompt:
    content = _value(row, config.prompt_key, "prompt_key", index)
    label = None if config.label_key is None else _value(row, config.label_key, "label_key", index)
    messages: list[dict[str, Any]] = []
    if config.apply_chat_template:
        messages = _messages(content, index)
        text = tokenizer.render(messages, config.system_prompt, template)
    elif isinstance(content, str) and content:
        text = content
    else:
        raise ValueError(
            f"row {index}: the prompt is {_kind(content)}; wanted text, as data.apply_chat_template is false"
        )
    tokens = tokenizer.encode(text, add_special_tokens=not config.apply_chat_template)
    rest = {key: value for key, value in row.items() if key not in (config.prompt_key, config.label_key)}
    return Prompt(row=index, text=text, tokens=tuple(tokens), label=label, metadata=rest, messages=messages)


def _value(row: Row, key: str, option: str, index: int) -> Any:
    if key not in row:
        raise ValueError(
            f"row {index} has no {key!r} (it has {', '.join(map(repr, row)) or 'no keys'}); wanted the key named by "
            f"data.{option}: name another one"
        )
    return row[key]


def _messages(content: Any, index: int) -> list[dict[str, Any]]:
    """A string is one user message; a list of messages is used as it is."""
    if isinstance(content, str) and content:
        return [{"role": "user", "content": content}]
    if (
        isinstance(content, list)
        and content
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in content)
    ):
        return content
    raise ValueError(
        f"row {index}: the prompt is {_kind(content)}; wanted text, or a list of messages with 'role' and 'content'"
    )


def _kind(content: Any) -> str:
    return f"a {type(content).__name__}" if content else f"an empty {type(content).__name__}"
