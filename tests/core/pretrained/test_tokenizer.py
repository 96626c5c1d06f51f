"""Rendering and encoding with a real tokenizer, and with templates of other kinds."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from core.checks.chat_template import GIVEN, OF_RENDERING
from core.pretrained.tokenizer import Tokenizer, load_tokenizer

USER = [{"role": "user", "content": "What is 3 + 4?"}]
USER_TURN = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
LLAMA3_LIKE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set text = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set text = '' %}{% endif %}"
    "<|h|>system\ndate: today\n{{ text }}<|e|>"
    "{% for m in messages %}<|h|>{{ m['role'] }}\n{{ m['content'] }}<|e|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant\n{% endif %}"
)
NO_SYSTEM_ROLE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
SYSTEM_LAST = "{% for m in messages | reverse %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{# system #}"
REFUSING = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Tokenizer:
    return load_tokenizer(smollm2_dir)


@pytest.mark.parametrize(
    ("messages", "system_prompt", "wanted"),
    [
        pytest.param(USER, None, DEFAULT_SYSTEM + USER_TURN, id="template's default"),
        pytest.param(USER, "", USER_TURN, id="none at all"),
        pytest.param(USER, "Be brief.", "<|im_start|>system\nBe brief.<|im_end|>\n" + USER_TURN, id="own"),
        pytest.param(
            [{"role": "system", "content": "Row."}, *USER],
            "Be brief.",
            "<|im_start|>system\nRow.<|im_end|>\n" + USER_TURN,
            id="the row's own stands",
        ),
    ],
)
def test_system_prompt(
    tokenizer: Tokenizer, messages: list[dict[str, str]], system_prompt: str | None, wanted: str
) -> None:
    assert tokenizer.render(messages, system_prompt) == wanted


def test_none_at_all_keeps_the_beginning_of_text(tokenizer: Tokenizer) -> None:
    rendered = tokenizer.render(USER, "", template=LLAMA3_LIKE)
    assert rendered == "<|im_start|><|h|>user\nWhat is 3 + 4?<|e|><|h|>assistant\n"


def test_none_at_all_with_a_template_that_knows_no_system(tokenizer: Tokenizer) -> None:
    assert tokenizer.render(USER, "", template=NO_SYSTEM_ROLE) == "[user] What is 3 + 4?\n"


def test_variables_of_the_template(tokenizer: Tokenizer) -> None:
    template = "{{ messages[0].content }}{% if loud %}!{% endif %}"
    assert tokenizer.render(USER, template=template) == "What is 3 + 4?"
    assert tokenizer.render(USER, template=template, options={"loud": True}) == "What is 3 + 4?!"


def test_no_variable_may_be_one_of_what_renders(tokenizer: Tokenizer) -> None:
    taken = set(inspect.signature(tokenizer.fast.apply_chat_template).parameters) - {"kwargs"}
    assert taken <= {*GIVEN, *OF_RENDERING}


@pytest.mark.parametrize(
    ("template", "system_prompt", "words"),
    [
        pytest.param(SYSTEM_LAST, "", "cannot be told from the rest", id="system turn not first"),
        pytest.param(REFUSING, "Be brief.", r"roles \['system', 'user'\]: no system", id="role refused"),
        pytest.param("{% for %}", None, "chat template fails", id="syntax"),
    ],
)
def test_template_errors(tokenizer: Tokenizer, template: str, system_prompt: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer.render(USER, system_prompt, template=template)


@pytest.mark.parametrize(
    "text",
    ["", "plain", "a  b\n\n\tc .", "12345 and  6", "héllo ▁ 🎉 日本語", "<|im_start|>user\nhi<|im_end|>"],
    ids=["empty", "plain", "white space", "digits", "unicode", "special tokens"],
)
def test_encode_decode_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_every_digit_is_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("207") == [tokenizer.encode(digit)[0] for digit in "207"]


def test_special_tokens_are_one_id_and_left_out_of_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("7<|im_end|>")
    assert ids[-1:] == list(tokenizer.eos_token_ids)
    assert tokenizer.decode(ids) == "7"


def _copy_tokenizer(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def test_end_tokens_come_from_both_files(smollm2_dir: Path, tmp_path: Path) -> None:
    directory = _copy_tokenizer(smollm2_dir, tmp_path / "m")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert load_tokenizer(directory).eos_token_ids == (2, 0)


def test_tokenizer_without_template_says_what_to_do(smollm2_dir: Path, tmp_path: Path) -> None:
    bare = load_tokenizer(_copy_tokenizer(smollm2_dir, tmp_path / "m"))
    with pytest.raises(ValueError, match=r"no chat template.*data.apply_chat_template: false"):
        bare.render(USER)


def test_no_tokenizer_in_the_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer.json in .*copy tokenizer.json"):
        load_tokenizer(tmp_path)
