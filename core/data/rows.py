"""Rows of a data source, as dictionaries, before anything is rendered.

The reasoning_gym source makes rows with the keys `prompt`, `label`, `dataset`, `options` and `entry`: the run file's
default `prompt_key` and `label_key` fit, and the last three are what the reasoning_gym reward needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from common.mistake import Wrong
from core.config.sections.data import DataConfig
from core.data.files import data_files, refuse_other_kinds
from core.data.gym import gym_dataset
from core.plugins import FORMS, load_function

Row = dict[str, Any]
SHOWN_CHARACTERS = 120


def load_rows(config: DataConfig) -> list[Row]:
    """All rows of the source that `config` names, or the first `config.size` of them.

    Raises:
        Wrong: (a ValueError) no such file, dataset or function; an unreadable row; no rows at all.
        Exception: whatever a user's own function raises.
    """
    loaders = {"jsonl": _jsonl, "parquet": _parquet, "reasoning_gym": _reasoning_gym, "python": _python}
    rows = list(islice(loaders[config.source](config), config.size))
    if config.source != "jsonl":  # whose lines have been looked at, with their numbers
        for number, row in enumerate(rows, start=1):
            _refuse_half_characters(row, f"row {number} of {_name(config)}")
    if not rows:
        raise Wrong(f"data source {_name(config)} without rows", "at least one row", "correct the source")
    return rows


def _name(config: DataConfig) -> str:
    return f"{config.source} {config.dataset if config.source == 'reasoning_gym' else config.path}"


def _jsonl(config: DataConfig) -> Iterator[Row]:
    for file in data_files(config):
        refuse_other_kinds(file, "jsonl")
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _json_row(line.removeprefix(b"\xef\xbb\xbf"), f"{file}, line {number}")


def _json_row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # covers what is not UTF-8 as well
        found = f"{place}: no JSON ({error}): {_shown(line)}"
        raise Wrong(found, "one JSON object per line", "mend or remove it") from error
    if not isinstance(row, dict):
        found = f"{place}: a JSON {type(row).__name__}: {_shown(line)}"
        raise Wrong(found, "an object, {...}", "mend or remove the line")
    if b"\\u" in line:  # only by an escape can JSON in UTF-8 hold half a character
        _refuse_half_characters(row, place)
    return row


def _refuse_half_characters(value: Any, place: str) -> None:
    """Refuse text with half of a surrogate pair, which no tokenizer and no file can hold.

    Raises:
        Wrong: it is somewhere in `value`.
    """
    if isinstance(value, dict):
        for key, below in value.items():
            _refuse_half_characters(key, place)
            _refuse_half_characters(below, place)
    elif isinstance(value, list | tuple):
        for below in value:
            _refuse_half_characters(below, place)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"{place}: half a character ({ascii(value[error.start])[1:-1]}, a lone surrogate)"
            raise Wrong(found, "text that UTF-8 can hold", "mend or remove it") from error


def _shown(line: bytes) -> str:
    """The line, cut, with everything escaped that a terminal would act on."""
    text = line.decode("utf-8", errors="backslashreplace").strip()
    text = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _parquet(config: DataConfig) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    for file in data_files(config):
        refuse_other_kinds(file, "parquet")
        try:
            with ParquetFile(file) as parquet:
                for batch in parquet.iter_batches():
                    yield from batch.to_pylist()
        except (ArrowException, UnicodeDecodeError) as error:
            found = f"{file}, which cannot be read as parquet ({error})"
            raise Wrong(found, "a parquet file", "make it again") from error


def _reasoning_gym(config: DataConfig) -> Iterator[Row]:
    name = config.dataset or ""
    _check_dataset_name(name)
    if "size" in config.options:
        raise Wrong("'size' in data.options", "the number of rows as data.size", "move it there")
    options = {"seed": config.seed, **({"size": config.size} if config.size else {}), **config.options}
    try:
        dataset = gym_dataset(name, options)
    except Exception as error:  # a dataset looks at its options as it likes
        found = f"data.options {config.options}, which the reasoning_gym dataset {name!r} refuses ({error})"
        raise Wrong(found, "options that the dataset takes", "correct data.options") from error
    for entry in _entries(dataset, name):
        yield {
            "prompt": entry["question"],
            "label": entry["answer"],
            "dataset": name,
            "options": config.options,
            "entry": dict(entry),
        }


def _entries(dataset: Iterable[Any], name: str) -> Iterator[Any]:
    """What the dataset makes, one after the other; a few draws of some datasets have no solution."""
    made, number = iter(dataset), 0
    while True:
        number += 1
        try:
            entry = next(made)
        except StopIteration:
            return
        except Exception as error:
            found = f"row {number} of the reasoning_gym dataset {name!r}, which it cannot make ({error})"
            remedy = "choose another data.seed, a smaller data.size or other data.options"
            raise Wrong(found, "a dataset that makes all of its rows", remedy) from error
        yield entry


def _check_dataset_name(name: str) -> None:
    from difflib import get_close_matches

    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        nearest = get_close_matches(name, DATASETS, n=3)
        remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"they are {', '.join(sorted(DATASETS))}"
        raise Wrong(repr(name), f"one of the {len(DATASETS)} datasets of reasoning_gym", remedy)


def _python(config: DataConfig) -> Iterator[Row]:
    if not isinstance(config.path, str):
        raise Wrong("no function as data.path", FORMS, "name one")
    rows: Iterable[Any] = load_function(config.path, "data.path")(**config.options)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            found = f"a {type(row).__name__} as row {index} of {config.path}"
            raise Wrong(found, "a dictionary for each row", "correct the function")
        yield row
