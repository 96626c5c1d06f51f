"""A model's tokenizer, behind the few calls that the loop needs.

Rendering (messages to text) and encoding (text to ids) are apart: the text is kept beside the ids in every sample.
Left out: images, slow tokenizers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from core.pretrained.tokenizer_files import TOKENIZER
from core.pretrained.transformers_import import import_transformers

Message = dict[str, Any]  # {"role": "user", "content": "..."}
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def load_tokenizer(model_dir: str | Path) -> Tokenizer:
    """The tokenizer in a HuggingFace directory.

    Raises:
        ValueError: the directory holds no tokenizer.json.
    """
    directory = Path(model_dir)
    if not (directory / TOKENIZER).is_file():
        raise ValueError(
            f"no tokenizer.json in {directory}; wanted a fast tokenizer beside the weights: copy tokenizer.json and "
            "tokenizer_config.json there, or convert a slow tokenizer"
        )
    fast = import_transformers().AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return Tokenizer(fast, _generation_eos(directory))


class Tokenizer:
    """Thin and typed, over transformers' fast tokenizer (which stays reachable as `.fast`)."""

    def __init__(self, fast: Any, extra_eos: Sequence[int] = ()) -> None:
        self.fast = fast
        own = [] if fast.eos_token_id is None else [int(fast.eos_token_id)]
        self.eos_token_ids: tuple[int, ...] = tuple(dict.fromkeys([*own, *extra_eos]))

    def __len__(self) -> int:
        return len(self.fast)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of `text`. Rendered text holds its special tokens already, so none are added unless asked for."""
        return cast(list[int], self.fast.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; bytes that are no UTF-8 become U+FFFD."""
        return cast(str, self.fast.decode(list(token_ids), skip_special_tokens=skip_special_tokens))

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of rendered text, and the first and last character of each (the last exclusive)."""
        found = self.fast(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [(begin, end) for begin, end in found["offset_mapping"]]

    def encode_marked(
        self, messages: Sequence[Message], template: str | None = None, options: Mapping[str, Any] = NO_OPTIONS
    ) -> tuple[list[int], list[int]]:
        """Ids of whole messages, and 1 for those that the template marks as the model's own, by {% generation %}."""
        found = self.fast.apply_chat_template(
            list(messages),
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **options,
        )
        return list(found["input_ids"]), list(found["assistant_masks"])

    def has_marks(self, pattern: re.Pattern[str], template: str | None = None) -> bool:
        """Whether the chat template has this in it."""
        return bool(pattern.search(str(template or self.fast.chat_template or "")))

    def render(
        self,
        messages: Sequence[Message],
        system_prompt: str | None = None,
        template: str | None = None,
        tools: Sequence[Message] = (),
        generation_prompt: bool = True,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> str:
        """Messages as the text that the model sees, up to where its answer begins.

        Args:
            messages: chat messages; a system message among them stands, and `system_prompt` is then not used.
            system_prompt: None: what the template does by itself (SmolLM2 and Qwen2.5 add a default system message);
                "": no system message at all, not even the template's own; else: the text of the system message.
            template: jinja text in place of the tokenizer's own template.
            tools: JSON schemas of what the model may call.
            generation_prompt: False: only up to the end of the last message.
            options: variables of the template beside those.
        Raises:
            ValueError: no template, or one that fails on these messages.
        """
        if self.fast.chat_template is None and template is None:
            raise ValueError(
                "the tokenizer has no chat template; wanted one: give data.chat_template, or set "
                "data.apply_chat_template: false to use the prompts as they are"
            )
        apply = partial(self._apply, template=template, tools=tools, options=options)
        if system_prompt is None or any(message.get("role") == "system" for message in messages):
            return apply(messages, generation_prompt=generation_prompt)
        if system_prompt:
            return apply([_system(system_prompt), *messages], generation_prompt=generation_prompt)
        if "system" not in str(template or self.fast.chat_template):
            return apply(messages, generation_prompt=generation_prompt)
        return self._without_system(messages, apply, generation_prompt)

    def _without_system(self, messages: Sequence[Message], apply: Callable[..., str], generation_prompt: bool) -> str:
        """Cut the system turn off: what the text with a system message has beyond that message alone.

        A beginning-of-text token in front of the system turn is kept.
        """
        stand_in = _system("none")
        whole = apply([stand_in, *messages], generation_prompt=generation_prompt)
        turn = apply([stand_in], generation_prompt=False)
        if not whole.startswith(turn):
            raise ValueError(
                "system_prompt is empty, but in this chat template the system message cannot be told from the rest; "
                "wanted a template that writes one turn after the other: give one without a system message as "
                "data.chat_template"
            )
        rest, begin = whole[len(turn) :], self.fast.bos_token or ""
        return rest if rest.startswith(begin) or not whole.startswith(begin) else begin + rest

    def _apply(
        self,
        messages: Sequence[Message],
        *,
        template: str | None,
        tools: Sequence[Message],
        generation_prompt: bool,
        options: Mapping[str, Any],
    ) -> str:
        from jinja2 import TemplateError

        try:
            text = self.fast.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **options,
            )
        except TemplateError as error:
            roles = [message.get("role") for message in messages]
            raise ValueError(
                f"the chat template fails on messages with roles {roles}: {error}; wanted messages that it accepts: "
                "change the rows or data.system_prompt, or give another template as data.chat_template"
            ) from error
        return cast(str, text)


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _generation_eos(directory: Path) -> list[int]:
    """End tokens in generation_config.json: there may be several, beside the tokenizer's own."""
    file = directory / "generation_config.json"
    eos = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    if eos is None:
        return []
    return [int(token_id) for token_id in (eos if isinstance(eos, list) else [eos])]
