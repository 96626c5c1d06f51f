"""Rows of a data source, as dictionaries, before anything is rendered.

The reasoning_gym source makes rows with the keys `prompt`, `label`, `dataset`, `options` and `entry`: the run file's
default `prompt_key` and `label_key` fit, and the last three are what the reasoning_gym reward needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from core.config.schema import DataConfig
from core.plugins import FORMS, load_function

Row = dict[str, Any]
SHOWN_CHARACTERS = 120


def load_rows(config: DataConfig) -> list[Row]:
    """All rows of the source that `config` names, or the first `config.size` of them.

    Raises:
        Wrong: (a ValueError) no such file, dataset or function; an unreadable row; no rows at all.
    """
    loaders = {"jsonl": _jsonl, "parquet": _parquet, "reasoning_gym": _reasoning_gym, "python": _python}
    rows = list(islice(loaders[config.source](config), config.size))
    if not rows:
        raise Wrong(f"data source {_name(config)} without rows", "at least one row", "correct the source")
    return rows


def _name(config: DataConfig) -> str:
    return f"{config.source} {config.dataset if config.source == 'reasoning_gym' else config.path}"


def _file(config: DataConfig) -> Path:
    file = Path(config.path or "")
    if config.path is None or not file.is_file():
        found = f"no such file as data.path {config.path!r} (looked in {Path.cwd()})"
        raise Wrong(found, f"a {config.source} file", "correct the path")
    return file


def _jsonl(config: DataConfig) -> Iterator[Row]:
    file = _file(config)
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _json_row(line.removeprefix(b"\xef\xbb\xbf"), f"{file}, line {number}")


def _json_row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:  # covers what is not UTF-8 as well
        found = f"{place}: no JSON ({error}): {_shown(line)}"
        raise Wrong(found, "one JSON object per line", "mend or remove it") from error
    if not isinstance(row, dict):
        found = f"{place}: a JSON {type(row).__name__}: {_shown(line)}"
        raise Wrong(found, "an object, {...}", "mend or remove the line")
    return row


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="backslashreplace").strip()
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _parquet(config: DataConfig) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    file = _file(config)
    try:
        with ParquetFile(file) as parquet:
            for batch in parquet.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        found = f"{file}, which cannot be read as parquet ({error})"
        raise Wrong(found, "a parquet file", "make it again") from error


def _reasoning_gym(config: DataConfig) -> Iterator[Row]:
    import reasoning_gym

    name = config.dataset or ""
    _check_dataset_name(name)
    if "size" in config.options:
        raise Wrong("'size' in data.options", "the number of rows as data.size", "move it there")
    options = {"seed": config.seed, **({"size": config.size} if config.size else {}), **config.options}
    try:
        dataset = reasoning_gym.create_dataset(name, **options)
    except (TypeError, ValueError, AssertionError) as error:
        found = f"data.options {config.options}, which the reasoning_gym dataset {name!r} refuses ({error})"
        raise Wrong(found, "options that the dataset takes", "correct data.options") from error
    for entry in dataset:
        yield {
            "prompt": entry["question"],
            "label": entry["answer"],
            "dataset": name,
            "options": config.options,
            "entry": dict(entry),
        }


def _check_dataset_name(name: str) -> None:
    from difflib import get_close_matches

    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        nearest = get_close_matches(name, DATASETS, n=3)
        remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"they are {', '.join(sorted(DATASETS))}"
        raise Wrong(repr(name), f"one of the {len(DATASETS)} datasets of reasoning_gym", remedy)


def _python(config: DataConfig) -> Iterator[Row]:
    if config.path is None:
        raise Wrong("no data.path", FORMS, "add data.path")
    rows: Iterable[Any] = load_function(config.path, "data.path")(**config.options)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            found = f"a {type(row).__name__} as row {index} of {config.path}"
            raise Wrong(found, "a dictionary for each row", "correct the function")
        yield row
