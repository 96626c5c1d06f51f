"""How chat messages become the text that a model sees: by a template, with what the run file says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from common.mistake import Wrong
from core.config.sections.data import DataConfig


class PromptTokenizer(Protocol):
    """What is needed of `core.pretrained.tokenizer.Tokenizer`."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]: ...

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        system_prompt: str | None = None,
        template: str | None = None,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = True,
        options: Mapping[str, Any] = ...,
    ) -> str: ...


@dataclass(frozen=True)
class Rendering:
    """How the messages of a section become text.

    Attributes:
        system_prompt, template, tools, options: see `core.pretrained.tokenizer.Tokenizer.render`.
        generation_prompt: False: the prompt ends where its last message does, as others may speak before the model.
    """

    system_prompt: str | None = None
    template: str | None = None
    tools: Sequence[dict[str, Any]] = ()
    generation_prompt: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def text(
        self, tokenizer: PromptTokenizer, messages: Sequence[dict[str, Any]], generation_prompt: bool | None = None
    ) -> str:
        """Messages as text. `generation_prompt`: another than the section's."""
        ends = self.generation_prompt if generation_prompt is None else generation_prompt
        return tokenizer.render(messages, self.system_prompt, self.template, self.tools, ends, self.options)


def rendering_of(
    config: DataConfig, tools: Sequence[dict[str, Any]] = (), *, generation_prompt: bool = True
) -> Rendering:
    """What a section says of it.

    Raises:
        ValueError: as of `read_template`.
    """
    template = read_template(config)
    return Rendering(config.system_prompt, template, tools, generation_prompt, config.chat_template_options)


def read_template(config: DataConfig) -> str | None:
    """The text of `chat_template`; None: the tokenizer's own is used.

    Raises:
        ValueError: there is no such file, or it is no text.
    """
    if config.chat_template is None:
        return None
    file = Path(config.chat_template)
    if not file.is_file():
        raise ValueError(
            f"data.chat_template is {str(file)!r}: no such file (looked in {Path.cwd()}): correct the path"
        )
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Wrong(f"{file}, which is no UTF-8", "a chat template in UTF-8", "save it as UTF-8") from error


def refuse_untold_tools(tools: Sequence[dict[str, Any]], text: str) -> None:
    """Refuse a prompt that does not name a tool: many templates pass over them in silence.

    Raises:
        Wrong: naming the tool.
    """
    for tool in tools:
        name = tool["function"]["name"]
        if name not in text:
            remedy = "give a template that writes `tools` as data.chat_template, or describe them in data.system_prompt"
            raise Wrong(f"a prompt that says nothing of the tool {name}", "one that tells the model of it", remedy)
