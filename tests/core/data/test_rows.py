"""Rows from every kind of source, and what is said of bad ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.config.sections.data import DataConfig
from core.data import load_rows
from tests.support.waiting import COMMAND_S

ROWS = [{"prompt": f"p{i}", "label": i} for i in range(4)]
PYTHON_SOURCE = """
def rows(count=4):
    return [{"prompt": f"p{i}", "label": i} for i in range(count)]

def numbers():
    return [1, 2]

size = 3
"""


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(f'{{"prompt": "p{i}", "label": {i}}}' for i in range(4)) + "\n\n")
    return file


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    file = tmp_path / "rows.parquet"
    write_table(pyarrow.Table.from_pylist(ROWS), file)
    return file


@pytest.fixture
def module(tmp_path: Path) -> Path:
    file = tmp_path / "my_rows.py"
    file.write_text(PYTHON_SOURCE)
    return file


@pytest.mark.parametrize("size", [None, 3], ids=["all", "first rows"])
@pytest.mark.parametrize("source", ["jsonl", "parquet", "module"])
def test_files_and_functions_give_their_rows(source: str, size: int | None, request: pytest.FixtureRequest) -> None:
    file = request.getfixturevalue(source)
    kind, path = ("python", f"{file}:rows") if source == "module" else (source, str(file))
    assert load_rows(DataConfig(source=kind, path=path, size=size)) == ROWS[:size]


def test_python_source_gets_its_options(module: Path) -> None:
    config = DataConfig(source="python", path=f"{module}:rows", options={"count": 2})
    assert load_rows(config) == ROWS[:2]


def test_parquet_keeps_chat_messages_as_lists(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [{"prompt": [{"role": "user", "content": "hi"}], "label": "x"}]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "chat.parquet")
    assert load_rows(DataConfig(source="parquet", path=str(tmp_path / "chat.parquet"))) == rows


def test_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "bom.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert load_rows(DataConfig(path=str(tmp_path / "bom.jsonl"))) == [{"prompt": "a"}]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        pytest.param(b'{"prompt": "oops"', ["bad.jsonl, line 3: no JSON", '{"prompt": "oops"'], id="not JSON"),
        pytest.param(b"[1, 2]", ["line 3: a JSON list", "[1, 2]"], id="not an object"),
        pytest.param(b'{"prompt": "\xff"}', ["line 3: no JSON", "utf-8", "\\xff"], id="not UTF-8"),
        pytest.param(b"x" * 500, ["line 3", "x" * 120 + "..."], id="long line cut"),
    ],
)
def test_bad_line_is_named(bad: bytes, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"prompt": "fine"}\n\n' + bad + b"\n")
    with pytest.raises(ValueError) as error:
        load_rows(DataConfig(path=str(file)))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"path": "/no/such.jsonl"}, "/no/such.jsonl, which does not exist", id="no file"),
        pytest.param({}, "found no data.path, with source jsonl", id="no path"),
        pytest.param({"path": "{empty}"}, "jsonl .* without rows", id="empty"),
        pytest.param({"source": "parquet", "path": "{text}"}, "no parquet", id="not parquet"),
        pytest.param({"source": "python", "path": "{module}"}, "wanted module.py:function", id="no function named"),
        pytest.param(
            {"source": "python", "path": "{module}:nope"}, "nothing named nope .* has: rows, numbers", id="absent"
        ),
        pytest.param({"source": "python", "path": "{module}:size"}, "a int named size in", id="not a function"),
        pytest.param({"source": "python", "path": "{module}:numbers"}, "a int as row 0", id="rows no dictionaries"),
        pytest.param({"source": "python", "path": "no_such_module:f"}, "No module named", id="no module"),
        pytest.param({"source": "python", "path": "{text}.py:f"}, "no file", id="no module file"),
        pytest.param({"source": "python"}, "found no function as data.path", id="python without path"),
        pytest.param(
            {"source": "reasoning_gym", "dataset": "chain_sums"}, "reasoning_gym: did you mean chain_sum or", id="near"
        ),
        pytest.param(
            {"source": "reasoning_gym", "dataset": "chain_sum", "options": {"min_term": 2}}, "min_term", id="option"
        ),
        pytest.param(
            {"source": "reasoning_gym", "dataset": "chain_sum", "options": {"size": 2}},
            "data.size",
            id="size in options",
        ),
    ],
)
def test_unusable_source(fields: dict[str, Any], words: str, tmp_path: Path, module: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "text").write_text("hello")
    names = {"empty": tmp_path / "empty.jsonl", "text": tmp_path / "text", "module": module}
    path = fields.get("path")
    with pytest.raises(ValueError, match=words):
        load_rows(DataConfig(**{**fields, "path": path.format(**names) if path else None}))


def test_reasoning_gym_rows_repeat_and_carry_their_entry() -> None:
    config = DataConfig(source="reasoning_gym", dataset="chain_sum", size=5, options={"min_terms": 2, "max_terms": 2})
    rows = load_rows(config)
    assert rows == load_rows(config)
    assert len(rows) == 5
    assert rows[0]["entry"]["answer"] == rows[0]["label"]
    assert rows[0]["entry"]["question"] == rows[0]["prompt"]
    assert rows != load_rows(config.model_copy(update={"seed": 1}))


def test_a_row_that_reasoning_gym_cannot_make_is_named() -> None:
    # a maze of 5 x 5 may have no goal that is 5 steps from its start
    config = DataConfig(source="reasoning_gym", dataset="maze", size=8000)
    with pytest.raises(ValueError, match=r"found row 5802 of the reasoning_gym dataset 'maze', .* choose another data"):
        load_rows(config)


def test_loading_rows_imports_no_torch() -> None:
    code = "import sys, core.data; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=COMMAND_S)
