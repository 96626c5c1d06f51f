"""What a model or a data set that was fetched is, and what to write into a run file for it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import modelcfg
from common.mistake import Wrong
from common.units import GIB
from core.data.files import SHARD_NUMBERS, SUFFIXES
from core.pretrained.weight_files import fitting_tensors
from launchers.transfer.fetch import Fetched

MOST_LISTED = 3  # files of a set, one by one


def about_model(name: str, fetched: Fetched) -> str:
    """The model's shape and size, whether it can be trained, and the line of the run file.

    Raises:
        Wrong: it is of no known family, or its weights are not those of its config.json.
    """
    config = json.loads((fetched.folder / "config.json").read_text(encoding="utf-8"))
    shape = modelcfg.from_hf(config, name=name)
    fitting_tensors(fetched.folder, shape)
    size = f"{modelcfg.num_parameters(shape) / 1e6:,.1f} M parameters, {shape.architecture}"
    names, differences = modelcfg.nearest_entries(config)
    known = "" if differences else f", known as {' and '.join(names)}"
    return f"{_size(fetched)}\n{size}{known}\nin a run file:\n  model: {{path: {name}}}"


def about_data(name: str, fetched: Fetched) -> str:
    """Each set of files with its rows and columns, and the lines of the run file."""
    lines = [_size(fetched), "in a run file, one of:"]
    for files in _sets(fetched.files):
        source = next(source for source, suffixes in SUFFIXES.items() if files[0].suffix in suffixes)
        paths = [f"{name}/{file.relative_to(fetched.folder)}" for file in files]
        whole = f"{name}/{files[0].parent.relative_to(fetched.folder)}"
        alone = len({SHARD_NUMBERS.sub("N", file.name) for file in _beside(files[0])}) == 1
        path = paths[0] if len(paths) == 1 else whole if alone else f"[{', '.join(paths)}]"
        rows, columns = _rows_and_columns(files, source)
        lines.append(f"  data: {{source: {source}, path: {path}}}")
        lines.append(f"    {rows}columns: {', '.join(columns)}")
    return "\n".join(lines)


def _size(fetched: Fetched) -> str:
    count = len(fetched.files)
    return f"{count} {'file' if count == 1 else 'files'}, {fetched.num_bytes / GIB:.2f} GiB, in {fetched.folder}"


def _sets(files: tuple[Path, ...]) -> Iterator[list[Path]]:
    """Files of rows, shards of one set together."""
    found: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in files:
        if any(file.suffix in suffixes for suffixes in SUFFIXES.values()):
            found[file.parent, SHARD_NUMBERS.sub("N", file.name)].append(file)
    if not found:
        raise Wrong("no jsonl and no parquet among the files", "data in one of these", "convert them, then name a path")
    yield from found.values()


def _beside(file: Path) -> list[Path]:
    return [other for other in file.parent.iterdir() if other.suffix == file.suffix]


def _rows_and_columns(files: list[Path], source: str) -> tuple[str, list[str]]:
    """The number of rows, where it can be told without reading all, and the names of the columns."""
    if source == "parquet":
        import pyarrow.parquet

        heads = [pyarrow.parquet.read_metadata(file) for file in files]
        return f"{sum(head.num_rows for head in heads):,} rows; ", list(heads[0].schema.to_arrow_schema().names)
    with files[0].open(encoding="utf-8") as stream:
        first = json.loads(stream.readline())
    return "", list(first)
