"""Rows that hold the answer, made into what supervised training learns from: tokens, and which of them are learnt.

A row has messages, of which each turn of the assistant is learnt, or a prompt and, under `label_key`, its answer. What
is learnt of a turn is what the model itself would say: from behind the generation prompt to the token that ends it.
Left out: weights of single messages; tools of single rows.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

from common.mistake import Wrong, show
from core.config.sections.data import DataConfig
from core.data.messages import is_message_list, messages_of
from core.data.pieces import Piece, last_turn_pieces, turn_pieces
from core.data.prompt_source import PromptSource, refuse_tokens, value_of
from core.data.rendering import PromptTokenizer, Rendering, rendering_of
from core.data.rows import Row, load_rows
from core.samples import Demonstration, Span

logger = logging.getLogger(__name__)
MARKS = re.compile(r"\{%-?\s*generation\b")  # of a template that says itself what the model writes


class MaskingTokenizer(PromptTokenizer, Protocol):
    """What is needed of `core.pretrained.tokenizer.Tokenizer`."""

    eos_token_ids: tuple[int, ...]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...

    def encode_marked(
        self, messages: Sequence[dict[str, Any]], template: str | None = None, options: Mapping[str, Any] = ...
    ) -> tuple[list[int], list[int]]: ...

    def has_marks(self, pattern: re.Pattern[str], template: str | None = None) -> bool: ...


class Encoded(NamedTuple):
    """Tokens, the mask of those that are learnt, and who says each (as the role of a chat message)."""

    tokens: list[int]
    mask: list[int]
    roles: list[str]


@dataclass(frozen=True)
class Limits:
    """The longest prompt and answer that are used, in tokens."""

    prompt: int
    response: int

    def hold(self, one: Demonstration) -> bool:
        """Whether it is used."""
        return len(one.tokens) <= self.prompt and len(one.response_tokens) <= self.response


def build_demonstrations(
    config: DataConfig, tokenizer: MaskingTokenizer, vocab_size: int | None, max_response_tokens: int, *, split: bool
) -> PromptSource:
    """Load and encode the rows of `config`.

    Args:
        split: each turn of the assistant is a demonstration of its own, with the past that the template writes then.
    Raises:
        ValueError: the source is unusable, a row has no answer, or every row is too long; see `demonstrations`.
    """
    limits = Limits(config.max_prompt_tokens, max_response_tokens)
    made = demonstrations(config, tokenizer, vocab_size, split=split)
    usable = [one for one in made if limits.hold(one)]
    longest = max(len(one.tokens) + len(one.response_tokens) for one in made)
    if not usable:
        shortest = min(made, key=lambda one: len(one.response_tokens))
        raise ValueError(
            f"all {len(made)} rows are too long: found {len(shortest.tokens)} tokens of a prompt and "
            f"{len(shortest.response_tokens)} of an answer in the shortest; wanted at most data.max_prompt_tokens = "
            f"{limits.prompt} and rollout.max_response_tokens = {limits.response}: raise them"
        )
    skipped = len(made) - len(usable)
    logger.info("data demonstrations=%d skipped=%d longest_tokens=%d", len(made), skipped, longest)
    return PromptSource(usable, skipped, config.shuffle, config.seed)


def demonstrations(
    config: DataConfig, tokenizer: MaskingTokenizer, vocab_size: int | None = None, *, split: bool = False
) -> list[Demonstration]:
    """What every row teaches, those that are too long too; arguments as of `build_demonstrations`.

    Raises:
        ValueError: naming the row: it lacks a key, has no answer, or the chat template does not do.
    """
    rendering = rendering_of(config)
    found = []
    for index, row in enumerate(load_rows(config)):
        content = value_of(row, config.prompt_key, "prompt_key", index)
        label = None if config.label_key is None else value_of(row, config.label_key, "label_key", index)
        try:
            for encoded in _encoded(content, label, config, rendering, tokenizer, split):
                refuse_tokens(str(content), encoded.tokens, vocab_size)
                found.append(_demonstration(index, row, config, encoded, tokenizer))
        except Exception as error:  # a template, or what it calls, may raise anything: it leaves with its row
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"row {index}: {what}") from error
    return found


def _encoded(
    content: Any, label: Any, config: DataConfig, rendering: Rendering, tokenizer: MaskingTokenizer, split: bool
) -> Iterator[Encoded]:
    if not config.apply_chat_template:
        yield _plain(content, label, tokenizer)
        return
    messages, asked = _messages(content, label)
    if not any(message["role"] == "assistant" for message in messages[asked:]):
        wanted = "a turn of the assistant to learn"
        raise Wrong("no message of the assistant", wanted, "name the answer's key as data.label_key, or leave it out")
    if rendering.system_prompt != "" and tokenizer.has_marks(MARKS, rendering.template) and not (split or asked):
        yield _marked(messages, rendering, tokenizer)
        return
    render = partial(rendering.text, tokenizer)
    if split:
        turns = [at for at in range(asked, len(messages)) if messages[at]["role"] == "assistant"]
        yield from (_by_pieces(last_turn_pieces(messages[: at + 1], render), tokenizer) for at in turns)
    else:
        yield _by_pieces(turn_pieces(messages, render, asked), tokenizer)


def _messages(content: Any, label: Any) -> tuple[list[dict[str, Any]], int]:
    """The whole conversation, and how many of its messages are only the prompt."""
    messages = messages_of(content)
    if label is None:
        return messages, 0
    if is_message_list(label):
        return [*messages, *messages_of(label)], len(messages)
    return [*messages, {"role": "assistant", "content": _text(label)}], len(messages)


def _text(label: Any) -> str:
    if isinstance(label, str) and label:
        return label
    if isinstance(label, int | float) and not isinstance(label, bool):
        return str(label)
    raise Wrong(f"{show(label)} as the answer", "text, or a list of messages", "correct data.label_key, or the row")


def _plain(content: Any, label: Any, tokenizer: MaskingTokenizer) -> Encoded:
    """A prompt and an answer as they are, and the token that ends a text."""
    if not isinstance(content, str) or not content:
        wanted = "text, as data.apply_chat_template is false"
        raise Wrong(f"{show(content)} as the prompt", wanted, "correct the row")
    prompt = tokenizer.encode(content, add_special_tokens=True)
    answer = [*tokenizer.encode(_text(label)), *tokenizer.eos_token_ids[:1]]
    roles = ["user"] * len(prompt) + ["assistant"] * len(answer)
    return Encoded(prompt + answer, [0] * len(prompt) + [1] * len(answer), roles)


def _marked(messages: Sequence[dict[str, Any]], rendering: Rendering, tokenizer: MaskingTokenizer) -> Encoded:
    """The tokens that the template marks."""
    system = [{"role": "system", "content": rendering.system_prompt}] if rendering.system_prompt else []
    own = [] if messages[0]["role"] == "system" else system
    tokens, mask = tokenizer.encode_marked([*own, *messages], rendering.template, rendering.options)
    if not any(mask):
        wanted = "{% generation %} around what the model says"
        raise Wrong("a template that marks nothing of the row", wanted, "give another as data.chat_template")
    return Encoded(tokens, mask, ["assistant" if one else "user" for one in mask])


def _by_pieces(pieces: Sequence[Piece], tokenizer: MaskingTokenizer) -> Encoded:
    """The pieces as tokens, of the whole text where none lies across two pieces, else of each piece."""
    tokens, bounds = _cut(pieces, tokenizer)
    mask, roles = [0] * len(tokens), [""] * len(tokens)
    for piece, (begin, end) in zip(pieces, pairwise(bounds), strict=True):
        roles[begin:end] = [piece.role] * (end - begin)
        if piece.learnt:
            last = _end_of_turn(tokens, begin, end, tokenizer.eos_token_ids)
            mask[begin:last] = [1] * (last - begin)
    return Encoded(tokens, mask, roles)


def _cut(pieces: Sequence[Piece], tokenizer: MaskingTokenizer) -> tuple[list[int], list[int]]:
    """All tokens, and where each piece begins among them, and the end."""
    tokens, places = tokenizer.encode_with_places("".join(piece.text for piece in pieces))
    begins, ends = [begin for begin, _ in places], list(accumulate(len(piece.text) for piece in pieces))
    bounds = [0, *(bisect_left(begins, end) for end in ends)]
    if all(bound == 0 or places[bound - 1][1] <= end for bound, end in zip(bounds[1:], ends, strict=True)):
        return tokens, bounds
    parts = [tokenizer.encode(piece.text) for piece in pieces]
    return [token for part in parts for token in part], list(accumulate(map(len, parts), initial=0))


def _end_of_turn(tokens: Sequence[int], begin: int, end: int, ends: Sequence[int]) -> int:
    """The place where what the model says of a turn ends: behind its end token, which others may write for it."""
    inside = [place for place in range(begin, end) if tokens[place] in ends]
    if inside:
        return inside[-1] + 1
    return end + 1 if end < len(tokens) and tokens[end] in ends else end


def _demonstration(
    index: int, row: Row, config: DataConfig, encoded: Encoded, tokenizer: MaskingTokenizer
) -> Demonstration:
    """Prompt up to the first token that is learnt, answer up to the last."""
    tokens, mask, roles = encoded
    first, last = mask.index(1), len(mask) - mask[::-1].index(1)
    if first == 0:
        raise Wrong("a first token that is learnt", "a prompt before it", "begin the row with another message")
    rest: Mapping[str, Any] = {k: v for k, v in row.items() if k not in (config.prompt_key, config.label_key)}
    return Demonstration(
        row=index,
        text=tokenizer.decode(tokens[:first], skip_special_tokens=False),
        tokens=tuple(tokens[:first]),
        label=None,
        metadata=rest,
        response_tokens=tuple(tokens[first:last]),
        loss_mask=tuple(mask[first:last]),
        response_text=tokenizer.decode(tokens[first:last]),
        turns=tuple(_spans(tokens[first:last], mask[first:last], roles[first:last], tokenizer)),
    )


def _spans(
    tokens: Sequence[int], mask: Sequence[int], roles: Sequence[str], tokenizer: MaskingTokenizer
) -> Iterator[Span]:
    """Who says what; nothing where all of it is one answer."""
    if all(mask):
        return
    changes = [place for place in range(1, len(mask)) if mask[place] != mask[place - 1]]
    for begin, end in pairwise([0, *changes, len(mask)]):
        role = "assistant" if mask[begin] else next((one for one in roles[begin:end] if one != "assistant"), "user")
        yield Span(begin, end, role, text=tokenizer.decode(tokens[begin:end]))
