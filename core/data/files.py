"""Files of a data source: which they are, and what their first bytes say of their kind."""

from __future__ import annotations

import re
from pathlib import Path

from common.mistake import Wrong
from core.config.hub import not_in_cache, on_hub
from core.config.sections.data import DataConfig
from core.pretrained.header import LFS_POINTER

SHARD_NUMBERS = re.compile(r"\d+")
SUFFIXES = {"jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
FIRST_BYTES = 512
COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"PK\x03\x04": ("zip", "unzip"),
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
PARQUET = b"PAR1"


def data_files(config: DataConfig) -> list[Path]:
    """The files that `data.path` of a jsonl or parquet source names, in the order in which their rows are read.

    A folder stands for its files of the source's kind, by name; they have to be shards of one set, so that a folder
    with train.parquet and test.parquet is not read as one.

    Raises:
        Wrong: there is no such file or folder, or a folder without such files, or with files of several sets.
    """
    given = [config.path] if isinstance(config.path, str) else list(config.path or ())
    if not given:
        raise Wrong(f"no data.path, with source {config.source}", f"a {config.source} file", "add path")
    return [file for path in given for file in _files_at(Path(path), config.source)]


def refuse_other_kinds(file: Path, source: str) -> None:
    """Hold a file's first bytes against the kind of its source.

    Raises:
        Wrong: it is compressed, UTF-16, of the other source, one JSON array, a web page, or a pointer of git-lfs.
    """
    with file.open("rb") as stream:
        first = stream.read(FIRST_BYTES)
    if told := _other_kind(first, source):
        kind, remedy = told
        wanted = "a parquet file" if source == "parquet" else "text in UTF-8 with one JSON object per line"
        raise Wrong(f"{file}, which is {kind}", wanted, remedy)


def _other_kind(first: bytes, source: str) -> tuple[str, str] | None:
    for magic, (kind, command) in COMPRESSED.items():
        if first.startswith(magic):
            return f"compressed ({kind})", f"unpack it with {command}"
    if first.startswith(LFS_POINTER):
        return "a pointer of git-lfs, not the file itself", "fetch the file: git lfs pull"
    if source == "parquet":
        return None if first.startswith(PARQUET) else ("no parquet", "make it again, or set source to jsonl")
    if first.startswith(PARQUET):
        return "a parquet file", "set source to parquet"
    if first.startswith(UTF_16) or b"\x00" in first[:64]:
        return "UTF-16, or no text at all", "save it as UTF-8"
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"<!DOCTYPE", b"<!doctype", b"<html")):
        return "a web page", "download the file itself"
    if text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b""):
        return "one JSON array", "write one object per line: jq -c '.[]' FILE"
    return None


def _files_at(path: Path, source: str) -> list[Path]:
    if path.is_file():
        return [path]
    if on_hub(str(path), "dataset"):  # a relative path: it was not found where it would be
        raise not_in_cache(str(path), "dataset")
    if not path.is_dir():
        remedy = "correct the path; a relative one starts at the run file's folder"
        raise Wrong(f"{path}, which does not exist", f"a {source} file", remedy)
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES[source] and file.is_file())
    if not files:
        found = f"the folder {path} without a {SUFFIXES[source][0]} file in it"
        raise Wrong(found, f"a {source} file, a list of them, or the folder that holds them", "correct the path")
    sets = {SHARD_NUMBERS.sub("N", file.name): file.name for file in files}
    if len(sets) > 1:
        found = f"the folder {path} with files of several sets: {', '.join(list(sets.values())[:4])}"
        raise Wrong(found, "a folder with the shards of one set", "list the files that you mean: path: [FILE, FILE]")
    return files
