"""Rows as people have them: shards, nested and serialised columns, parts, odd files; each read, or refused by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.mistake import Wrong
from core.config.sections.data import DataConfig
from core.data import build, load_rows
from core.data.keys import keys_of, value_at
from core.data.messages import messages_of

ROW = b'{"prompt": "a", "label": "b"}\n'
USER = {"role": "user", "content": "What is 2+2?"}


class Characters:
    """A tokenizer of characters, with a template that writes contents: for what is done around a tokenizer."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(one) for one in text]

    def render(
        self, messages: Sequence[dict[str, Any]], system_prompt: str | None = None, template: str | None = None, *_: Any
    ) -> str:
        if template == "raises":
            raise TypeError("can only concatenate str")
        return template or "".join(message["content"] for message in messages)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b'{"prompt": "cut \\ud83d emoji"}\n', ["line 1", r"\ud83d", "UTF-8"], id="half a character"),
        pytest.param(b'{"prompt": {"\\ud83d": 1}}\n', ["line 1", r"\ud83d"], id="half a character in a key"),
        pytest.param(gzip.compress(ROW), ["gzip", "gunzip"], id="gzip"),
        pytest.param(b"PK\x03\x04" + ROW, ["zip", "unzip"], id="zip"),
        pytest.param(ROW.decode().encode("utf-16"), ["UTF-16", "save it as UTF-8"], id="UTF-16"),
        pytest.param(ROW.decode().encode("utf-16-le"), ["UTF-16", "save it as UTF-8"], id="UTF-16 without a mark"),
        pytest.param(b'[\n  {"prompt": "a"}\n]', ["one JSON array", "one object per line"], id="array"),
        pytest.param(b"PAR1....", ["a parquet file", "set source to parquet"], id="parquet"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"], id="pointer of git-lfs"),
        pytest.param(b"<!DOCTYPE html><html>", ["a web page"], id="web page"),
        pytest.param(b'\x1b[31mRED {"prompt"\n', [r"\x1b[31mRED"], id="escape code"),
        pytest.param(b"[" * 100_000, ["line 1: no JSON"], id="nested deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_what_it_holds(content: bytes, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(Wrong) as caught:
        load_rows(DataConfig(path=str(file)))
    text = str(caught.value)
    assert all(word in text for word in [*words, str(file)]), text
    assert text.isprintable(), ascii(text)


def test_half_a_character_of_a_users_function_is_found_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def rows():\n    return [{'prompt': 'a'}, {'prompt': ['\\ud83d']}]\n")
    with pytest.raises(Wrong, match=r"row 2 of python .*half a character"):
        load_rows(DataConfig(source="python", path=f"{tmp_path}/mine.py:rows"))


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_shards_are_read_together_in_the_order_of_their_names(source: str, tmp_path: Path) -> None:
    for number in (1, 0):
        _write(tmp_path / f"train-{number:05d}-of-00002.{source}", [{"prompt": f"p{number}"}])
    (tmp_path / "README.md").write_text("about")
    wanted = [{"prompt": "p0"}, {"prompt": "p1"}]
    files = sorted(str(file) for file in tmp_path.glob(f"*.{source}"))
    assert load_rows(DataConfig.model_validate({"source": source, "path": str(tmp_path)})) == wanted
    assert load_rows(DataConfig.model_validate({"source": source, "path": files[::-1]})) == wanted[::-1]


def test_a_folder_with_several_sets_is_not_read_as_one(tmp_path: Path) -> None:
    for name in ("train", "test"):
        _write(tmp_path / f"{name}.parquet", [{"prompt": name}])
    with pytest.raises(Wrong, match=r"several sets: test.parquet, train.parquet.*list the files"):
        load_rows(DataConfig(source="parquet", path=str(tmp_path)))


def test_dotted_keys_reach_into_mappings_and_json_text() -> None:
    nested = {"reward_model": {"style": "rule", "ground_truth": "7"}, "a.b": 1}
    text = {"reward_model": json.dumps(nested["reward_model"])}
    assert value_at(nested, "reward_model.ground_truth") == value_at(text, "reward_model.ground_truth") == "7"
    assert value_at(nested, "a.b") == 1
    assert list(keys_of(nested)) == ["reward_model.style", "reward_model.ground_truth", "a.b"]
    for key in ("reward_model.other", "reward_model.style.x", "a"):
        with pytest.raises(KeyError):
            value_at(nested, key)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        pytest.param([{"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]}], [USER], id="a part"),
        pytest.param(
            [{"role": "user", "content": ["What ", {"type": "text", "text": "is 2+2?"}]}], [USER], id="two parts"
        ),
        pytest.param(json.dumps([USER]), [USER], id="JSON text"),
        pytest.param("[1, 2] is a list", [{"role": "user", "content": "[1, 2] is a list"}], id="text with a bracket"),
        pytest.param("[1, 2]", [{"role": "user", "content": "[1, 2]"}], id="JSON that is no messages"),
        pytest.param([{**USER, "tool_calls": None, "name": None}], [USER], id="keys without a value"),
        pytest.param(
            [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "w", "arguments": None}}]}],
            [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w"}}]}],
            id="a call of a tool",
        ),
    ],
)
def test_messages_have_one_shape(content: Any, wanted: list[dict[str, Any]]) -> None:
    assert messages_of(content) == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param([{"role": "user", "content": None}], "nothing as the content of message 1", id="no content"),
        pytest.param([USER, {"role": "user", "content": 7}], "7 as the content of message 2", id="a number"),
        pytest.param([{"role": "user", "content": [{"type": "image"}]}], r"parts of other kinds \(image\)", id="image"),
        pytest.param([{"role": "user", "content": []}], "a list of 0 as the content", id="no parts"),
        pytest.param([{"role": None, "content": "a"}], "nothing as the role of message 1", id="no role"),
    ],
)
def test_messages_of_other_shapes_are_refused(content: Any, words: str) -> None:
    with pytest.raises(Wrong, match=words):
        messages_of(content)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param("raises", "row 1: TypeError: can only concatenate str", id="error of the template's own"),
        pytest.param("nothing of it", "row 1: found a prompt of which the chat template wrote nothing", id="left out"),
    ],
)
def test_what_a_template_does_wrong_is_said_with_its_row(template: str, words: str, tmp_path: Path) -> None:
    class Second(Characters):
        def render(self, messages: Any, system_prompt: str | None = None, template: str | None = None, *_: Any) -> str:
            return super().render(messages, None, template if messages[0]["content"] == "bad" else None)

    _write(tmp_path / "rows.jsonl", [{"prompt": "good", "label": 1}, {"prompt": "bad", "label": 1}])
    (tmp_path / "t.jinja").write_text(template)
    config = DataConfig(path=str(tmp_path / "rows.jsonl"), chat_template=str(tmp_path / "t.jinja"))
    with pytest.raises(ValueError, match=words):
        build(config, Second())


def test_a_token_beyond_the_models_vocabulary_is_found_before_the_first_step(tmp_path: Path) -> None:
    _write(tmp_path / "rows.jsonl", [{"prompt": "a", "label": 1}, {"prompt": "b", "label": 1}])
    config = DataConfig(path=str(tmp_path / "rows.jsonl"))
    assert len(build(config, Characters(), vocab_size=ord("b") + 1)) == 2
    with pytest.raises(ValueError, match="row 1: found the token 98 in the prompt, and a model with 98 rows"):
        build(config, Characters(), vocab_size=ord("b"))


def test_a_template_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "rows.jsonl", [{"prompt": "a", "label": 1}])
    (tmp_path / "t.jinja").write_bytes(b"\xff")
    with pytest.raises(Wrong, match=r"t\.jinja, which is no UTF-8"):
        build(DataConfig(path=str(tmp_path / "rows.jsonl"), chat_template=str(tmp_path / "t.jinja")), Characters())


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    if file.suffix == ".jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), file)
