"""The section `data` of a run file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from core.config.sections.section import PositiveInt, Section


class DataConfig(Section):
    """Source of the prompts, and how a row becomes a prompt."""

    source: Literal["jsonl", "parquet", "reasoning_gym", "python"] = Field("jsonl", description="kind of source")
    path: str | tuple[str, ...] | None = Field(
        None,
        description="a file, a folder with the shards of one set, or a list of files (jsonl, parquet), also in a hub's "
        "data set as `ebbtide fetch --dataset` names them, or module.py:function / package.module:function (python)",
    )
    dataset: str | None = Field(None, description="reasoning_gym: the dataset's name")
    options: dict[str, Any] = Field(default_factory=dict, description="reasoning_gym or python: keyword arguments")
    size: PositiveInt | None = Field(
        None, description="reasoning_gym: how many rows to make; else: use the first rows only"
    )
    prompt_key: str = Field(
        "prompt",
        description="row key of the prompt: a string, or a list of chat messages; a dotted key reaches into mappings",
    )
    label_key: str | None = Field(
        "label",
        description="row key of the reference answer, dotted as above. Where rollout.generate is rows: of the answer "
        "that is learnt, and null, which is the default then: the assistant's turns of the prompt are",
    )
    apply_chat_template: bool = Field(True, description="wrap the prompt in the tokenizer's chat template")
    system_prompt: str | None = Field(
        None, description="null: the template's own default; an empty string: none at all"
    )
    chat_template: str | None = Field(
        None, description="a file with a jinja chat template, in place of the tokenizer's"
    )
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="variables that the chat template reads, such as {enable_thinking: false}"
    )
    max_prompt_tokens: PositiveInt = Field(1024, description="longer prompts are left out, and counted in the log")
    shuffle: bool = Field(True, description="a new order in each epoch, from `seed` and the epoch")
    seed: int = Field(42, description="of the order, and of what reasoning_gym makes")
