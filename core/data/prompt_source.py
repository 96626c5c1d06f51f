"""Rows made into prompts, and the order in which they are drawn.

All rows are rendered and tokenised at the start: a row that is too long or unusable is known before the first step.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from common.mistake import Wrong, show
from core.config.sections.data import DataConfig
from core.data.keys import keys_of, value_at
from core.data.messages import messages_of
from core.data.rendering import PromptTokenizer, Rendering, refuse_untold_tools, rendering_of
from core.data.rows import Row, load_rows
from core.samples import Prompt

logger = logging.getLogger(__name__)


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


def build(
    config: DataConfig,
    tokenizer: PromptTokenizer,
    vocab_size: int | None = None,
    rendering: Rendering | None = None,
) -> PromptSource:
    """Load, render and tokenise the rows of `config`.

    Args:
        vocab_size: of the model, which a tokenizer may exceed; None: it is not known.
        rendering: of this section, where there is a dialogue; None: what `config` says.
    Raises:
        ValueError: the source is unusable (see `load_rows`), a row lacks a key or holds no prompt that can be
            rendered and encoded for this model, or every row is longer than `config.max_prompt_tokens`.
    """
    prompts = render(config, tokenizer, vocab_size, rendering)
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


def render(
    config: DataConfig,
    tokenizer: PromptTokenizer,
    vocab_size: int | None = None,
    rendering: Rendering | None = None,
) -> list[Prompt]:
    """The prompt of every row, those that are too long too; arguments as of `build`.

    Raises:
        ValueError: as `build`, but for prompts that are too long.
    """
    rendering = rendering or rendering_of(config)
    rows = load_rows(config)
    return [_prompt(index, row, config, tokenizer, rendering, vocab_size) for index, row in enumerate(rows)]


def _epoch_order(num_prompts: int, seed: int) -> list[int]:
    order = list(range(num_prompts))
    random.Random(seed).shuffle(order)
    return order


def _prompt(
    index: int,
    row: Row,
    config: DataConfig,
    tokenizer: PromptTokenizer,
    rendering: Rendering,
    vocab_size: int | None,
) -> Prompt:
    content = value_of(row, config.prompt_key, "prompt_key", index)
    label = None if config.label_key is None else value_of(row, config.label_key, "label_key", index)
    try:
        messages = messages_of(content) if config.apply_chat_template else []
        text = _rendered(messages, tokenizer, rendering) if config.apply_chat_template else _plain(content)
        tokens = tokenizer.encode(text, add_special_tokens=not config.apply_chat_template)
        refuse_tokens(text, tokens, vocab_size)
    except Exception as error:  # a template, or what it calls, may raise anything: it leaves with its row
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"row {index}: {what}") from error
    rest = {key: value for key, value in row.items() if key not in (config.prompt_key, config.label_key)}
    return Prompt(row=index, text=text, tokens=tuple(tokens), label=label, metadata=rest, messages=messages)


def _rendered(messages: list[dict[str, Any]], tokenizer: PromptTokenizer, rendering: Rendering) -> str:
    """The messages as the model sees them, of which something must be left."""
    text = rendering.text(tokenizer, messages)
    contents = [message["content"].strip() for message in messages]
    if any(contents) and not any(content and content in text for content in contents):
        found = f"a prompt of which the chat template wrote nothing: it made {text[:80]!r}"
        remedy = "give another template as data.chat_template, or set data.apply_chat_template: false"
        raise Wrong(found, "a template that writes the content of the messages", remedy)
    refuse_untold_tools(rendering.tools, text)
    return text


def _plain(content: Any) -> str:
    if isinstance(content, str) and content:
        return content
    raise Wrong(f"{show(content)} as the prompt", "text, as data.apply_chat_template is false", "correct the row")


def refuse_tokens(text: str, tokens: Sequence[int], vocab_size: int | None) -> None:
    """Refuse a row without tokens, or with some that the model does not have.

    Raises:
        Wrong: it is such a row.
    """
    if not tokens:
        raise Wrong(f"a prompt without tokens ({text[:80]!r})", "a prompt with text", "correct or leave out the row")
    if vocab_size is not None and max(tokens) >= vocab_size:
        found = f"the token {max(tokens)} in the prompt, and a model with {vocab_size} rows of embeddings"
        raise Wrong(found, "tokens that the model knows", "use the model's own tokenizer, or leave out such rows")


def value_of(row: Row, key: str, option: str, index: int) -> Any:
    """What row `index` has under the key that data.`option` names.

    Raises:
        ValueError: it has no such key; the message names those that it has.
    """
    try:
        return value_at(row, key)
    except KeyError as error:
        raise ValueError(
            f"row {index} has no {key!r} (it has {', '.join(map(repr, keys_of(row))) or 'no keys'}); wanted the key "
            f"named by data.{option}: name another one"
        ) from error
