"""Rendering of rows, their order, and the rows that are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.sections.data import DataConfig
from core.data import PromptSource, build
from core.pretrained.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Tokenizer:
    return load_tokenizer(smollm2_dir)


def source_of(rows: list[dict[str, Any]], directory: Path, tokenizer: Tokenizer, **fields: Any) -> PromptSource:
    file = directory / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(DataConfig(path=str(file), **fields), tokenizer)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i}?", "label": str(i)} for i in range(count)]


def test_prompt_carries_text_tokens_label_and_the_rest(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"question": "What is 3 + 4?", "answer": "7", "level": 1}]
    fields = {"prompt_key": "question", "label_key": "answer", "system_prompt": ""}
    prompt = source_of(rows, tmp_path, tokenizer, **fields).prompt(0)
    assert prompt.text == "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(prompt.tokens, skip_special_tokens=False) == prompt.text
    assert (prompt.row, prompt.label, prompt.metadata) == (0, "7", {"level": 1})


@pytest.mark.parametrize(
    ("content", "fields", "wanted"),
    [
        pytest.param("hi", {"apply_chat_template": False}, "hi", id="as it is"),
        pytest.param(
            "hi", {"system_prompt": "S"}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi", id="system"
        ),
        pytest.param(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            {"system_prompt": ""},
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc",
            id="messages",
        ),
    ],
)
def test_rendering(content: Any, fields: dict[str, Any], wanted: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"prompt": content, "label": None}]
    assert source_of(rows, tmp_path, tokenizer, **fields).prompt(0).text.startswith(wanted)


def test_own_chat_template(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}Q: {{ m['content'] }}\n{% endfor %}A:")
    source = source_of(numbered(1), tmp_path, tokenizer, chat_template=str(tmp_path / "t.jinja"))
    assert source.prompt(0).text == "Q: What is 0?\nA:"


def test_order_is_a_function_of_the_position(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first, again = (source_of(numbered(10), tmp_path, tokenizer, seed=3) for _ in range(2))
    walked = [first.prompt(position).row for position in range(30)]
    assert [again.prompt(position).row for position in reversed(range(30))] == walked[::-1]
    epochs = [walked[:10], walked[10:20], walked[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = source_of(numbered(10), tmp_path, tokenizer, seed=4)
    assert [other.prompt(position).row for position in range(30)] != walked


def test_without_shuffle_rows_come_in_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = source_of(numbered(3), tmp_path, tokenizer, shuffle=False)
    assert [source.prompt(position).row for position in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(IndexError):
        source.prompt(-1)


def test_long_rows_are_left_out_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"prompt": "word " * length, "label": ""} for length in (1, 200, 2)]
    source = source_of(rows, tmp_path, tokenizer, max_prompt_tokens=60, shuffle=False)
    assert (len(source), source.num_skipped) == (2, 1)
    assert [source.prompt(position).row for position in range(2)] == [0, 2]


@pytest.mark.parametrize(
    ("row", "fields", "words"),
    [
        pytest.param({"prompt": "hi"}, {}, "row 0 has no 'label' .it has 'prompt'.*data.label_key", id="no label"),
        pytest.param({"text": "hi"}, {}, "row 0 has no 'prompt' .it has 'text'.*data.prompt_key", id="no prompt"),
        pytest.param({"prompt": 3}, {}, "row 0: found 3 as the prompt", id="a number"),
        pytest.param({"prompt": ""}, {}, "row 0: found '' as the prompt", id="empty"),
        pytest.param({"prompt": ["hi"]}, {}, "row 0: found a list of 1 as the prompt; .*role", id="not messages"),
        pytest.param(
            {"prompt": [{}]}, {"apply_chat_template": False}, "apply_chat_template is false", id="raw messages"
        ),
        pytest.param({"prompt": "hi"}, {"max_prompt_tokens": 5}, "all 1 prompts are longer .*= 5", id="all too long"),
        pytest.param({"prompt": "hi"}, {"chat_template": "/no.jinja"}, "'/no.jinja': no such file", id="no template"),
    ],
)
def test_unusable_rows(
    row: dict[str, Any], fields: dict[str, Any], words: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    if "label" not in words:
        fields = {**fields, "label_key": None}
    with pytest.raises(ValueError, match=words):
        source_of([row], tmp_path, tokenizer, **fields)
