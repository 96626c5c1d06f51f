"""Rows that are learnt: which tokens, in the manner of several families of chat templates, token for token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.sections.data import DataConfig
from core.data import build_demonstrations, demonstrations
from core.pretrained.tokenizer import Tokenizer
from core.samples import Demonstration
from tests.support.chat_templates import ENDS, QWEN, TEMPLATES, tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is this?"},
    {"role": "assistant", "content": "A test of rows."},
    {"role": "user", "content": "And that?"},
    {"role": "assistant", "content": "Its second turn."},
]
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAGE = Path(__file__).parents[3] / "docs" / "sft.md"
THOUGHT = "<think>\nA thought.\n</think>\n\nAn answer."


@pytest.fixture(scope="module", params=TEMPLATES)
def family(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    return request.param, tokenizer(request.param)


@pytest.fixture(scope="module")
def qwen() -> Tokenizer:
    return tokenizer("qwen")


def learn(
    rows: list[dict[str, Any]], folder: Path, known: Tokenizer, *, split: bool = False, **data: Any
) -> list[Demonstration]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields: dict[str, Any] = {"prompt_key": "messages", "label_key": None, **data}
    return demonstrations(DataConfig(path=str(file), **fields), known, split=split)


def learnt(one: Demonstration, known: Tokenizer) -> list[str]:
    """The texts of the stretches that are learnt, with their special tokens."""
    found, last = [], 0
    for token, counts in zip(one.response_tokens, one.loss_mask, strict=True):
        if counts and not last:
            found.append([])
        if counts:
            found[-1].append(token)
        last = counts
    return [known.decode(tokens, skip_special_tokens=False) for tokens in found]


def test_tokens_are_those_of_the_template_and_turns_end_with_their_end(
    family: tuple[str, Tokenizer], tmp_path: Path
) -> None:
    name, known = family
    (one,) = learn([{"messages": CONVERSATION}], tmp_path, known)
    whole = known.fast.apply_chat_template(CONVERSATION, tokenize=True, return_dict=False)
    made = [*one.tokens, *one.response_tokens]
    assert made == whole[: len(made)]
    first_end = "<|user|>" if name == "glm" else ENDS[name]
    last_end = "" if name == "glm" else ENDS[name]
    assert learnt(one, known) == ["A test of rows." + first_end, "Its second turn." + last_end]
    asked = known.fast.apply_chat_template(
        CONVERSATION[:2], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert list(one.tokens) == asked  # what an engine would be asked
    assert [turn.role for turn in one.turns] == ["assistant", "user", "assistant"]
    assert (one.turns[0].start, one.turns[-1].end) == (0, len(one.response_tokens))


def test_a_template_that_marks_the_turns_is_heeded(qwen: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "marked.jinja").write_text(MARKED)
    rows, template = [{"messages": CONVERSATION}], str(tmp_path / "marked.jinja")
    (marked,) = learn(rows, tmp_path, qwen, chat_template=template)
    (plain,) = learn(rows, tmp_path, qwen)
    assert learnt(marked, qwen) == ["A test of rows.<|im_end|>", "Its second turn.<|im_end|>"]
    assert (marked.tokens, marked.response_tokens, marked.loss_mask) == (
        plain.tokens,
        plain.response_tokens,
        plain.loss_mask,
    )


def test_a_template_that_rewrites_the_past_is_refused_or_split(qwen: Tokenizer, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": THOUGHT},
    ]
    with pytest.raises(ValueError, match="row 0: ") as caught:
        learn([{"messages": turns}], tmp_path, qwen)
    assert f"\n{caught.value}\n" in PAGE.read_text(encoding="utf-8")
    first, second = learn([{"messages": turns}], tmp_path, qwen, split=True)
    assert learnt(first, qwen) == learnt(second, qwen) == [THOUGHT + "<|im_end|>"]
    assert "thought" not in second.text
    assert second.text.startswith("<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nAn answer.<|im_end|>")


def test_a_generation_prompt_that_no_turn_begins_with_is_refused(qwen: Tokenizer, tmp_path: Path) -> None:
    thinks = QWEN.replace("'<|im_start|>assistant\n' }}{% endif %}", "'<|im_start|>assistant\n<think>\n' }}{% endif %}")
    assert thinks != QWEN
    (tmp_path / "thinks.jinja").write_text(thinks)
    with pytest.raises(ValueError, match=r"otherwise than its generation prompt begins it: .*<think>"):
        learn([{"messages": CONVERSATION}], tmp_path, qwen, chat_template=str(tmp_path / "thinks.jinja"))


@pytest.mark.parametrize("label", ["4", 4, [{"role": "assistant", "content": "4"}]], ids=["text", "number", "messages"])
def test_an_answer_of_its_own_column_is_all_that_is_learnt(label: Any, qwen: Tokenizer, tmp_path: Path) -> None:
    shown = [*CONVERSATION, {"role": "user", "content": "2 + 2?"}]
    (one,) = learn([{"q": shown, "a": label, "level": 1}], tmp_path, qwen, prompt_key="q", label_key="a")
    assert learnt(one, qwen) == ["4<|im_end|>"]
    assert one.text.endswith("2 + 2?<|im_end|>\n<|im_start|>assistant\n")
    assert (one.metadata, one.turns, one.response_text) == ({"level": 1}, (), "4")


def test_without_a_template_the_answer_ends_with_the_end_of_a_text(qwen: Tokenizer, tmp_path: Path) -> None:
    fields = {"prompt_key": "q", "label_key": "a", "apply_chat_template": False}
    (one,) = learn([{"q": "2 + 2 =", "a": " 4"}], tmp_path, qwen, **fields)
    assert (one.text, learnt(one, qwen)) == ("2 + 2 =", [" 4<|im_end|>"])


def test_a_token_that_lies_across_prompt_and_answer_is_not_made(tmp_path: Path, qwen: Tokenizer) -> None:
    """An engine is asked with the prompt's own tokens; here one token of the whole text would hold both."""
    pair = next(
        text
        for token in range(len(qwen))
        if len(text := qwen.decode([token])) == 2 and text.isalpha() and qwen.encode(text) == [token]
    )
    (tmp_path / "bare.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    rows = [{"messages": [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]}]
    (one,) = learn(rows, tmp_path, qwen, chat_template=str(tmp_path / "bare.jinja"))
    assert (qwen.decode(one.tokens), one.response_text) == (pair[0], pair[1])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": CONVERSATION[:2]}, "row 0: found no message of the assistant"),
        ({"messages": CONVERSATION[2:]}, "row 0: found a conversation that begins with the assistant"),
        ({"text": "a"}, "row 0 has no 'messages'"),
    ],
    ids=["no answer", "no beginning", "no key"],
)
def test_rows_that_teach_nothing_are_told(row: Any, said: str, qwen: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        learn([row], tmp_path, qwen)


def test_long_rows_are_left_out_and_counted(qwen: Tokenizer, tmp_path: Path) -> None:
    rows = [{"q": "a", "a": "word " * count} for count in (1, 60, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(path=str(tmp_path / "rows.jsonl"), prompt_key="q", label_key="a", shuffle=False)
    source = build_demonstrations(config, qwen, None, 50, split=False)
    assert (len(source), source.num_skipped) == (2, 1)
    assert [source.prompt(position).row for position in range(3)] == [0, 2, 0]
    with pytest.raises(ValueError, match=r"all 3 rows are too long: found .* wanted at most .*max_response_tokens = 1"):
        build_demonstrations(config, qwen, None, 1, split=False)
