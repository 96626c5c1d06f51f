"""Chat templates: there is one where prompts are rendered, and it reads the variables that the run file gives it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from common.mistake import Mistake, show
from core.checks.sections import data_sections
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.pretrained.tokenizer_files import TOKENIZER, chat_template_texts, has_chat_template

GIVEN = ("messages", "tools", "documents", "add_generation_prompt")  # to every template
OF_RENDERING = (  # transformers' own parameters, beside which a variable of the same name cannot be given
    *("conversation", "chat_template", "continue_final_message", "tokenize", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)


def is_there(config: RunConfig) -> Iterator[Mistake]:
    """The model has a chat template, if there are data to which one is applied and that bring none."""
    path = Path(config.model.path)
    if config.model.path.startswith(PACKAGE_PREFIX) or not (path / TOKENIZER).is_file() or has_chat_template(path):
        return
    for key, data in data_sections(config).items():
        if data.apply_chat_template and data.chat_template is None:
            remedy = f"give one as {key}.chat_template, or set {key}.apply_chat_template: false"
            wanted = "a chat template, as these prompts are to be rendered by one"
            yield Mistake(f"{key}.chat_template", None, f"nothing, and none with {path}", wanted, remedy)


def options_are_read(config: RunConfig) -> Iterator[Mistake]:
    """Every variable for a template is one that it names, and none that is given to it anyhow."""
    for section, data in data_sections(config).items():
        key, options = f"{section}.chat_template_options", data.chat_template_options
        if options and not data.apply_chat_template:
            wanted = "nothing, as apply_chat_template is false and no template is used"
            yield Mistake(key, None, show(options), wanted, "remove it")
            continue
        texts = _texts(config, data)
        for name in options:
            if name in (*GIVEN, *OF_RENDERING):
                wanted = "a variable of the template's own: this one is set for it"
                yield Mistake(f"{key}.{name}", None, name, wanted, "remove it")
            elif texts and not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
                wanted = "a variable that the chat template reads: this one has no such name in it"
                yield Mistake(f"{key}.{name}", None, name, wanted, "correct the name, or remove it")


def _texts(config: RunConfig, data: DataConfig) -> list[str]:
    """The templates that the section may be rendered by; nothing, if they cannot be read here."""
    if data.chat_template is not None:
        file = Path(data.chat_template)
        return [file.read_text(encoding="utf-8", errors="replace")] if file.is_file() else []
    return [] if config.model.path.startswith(PACKAGE_PREFIX) else chat_template_texts(Path(config.model.path))
