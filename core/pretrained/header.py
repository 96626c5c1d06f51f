"""The header of a safetensors file: what tensors it holds, and whether the file is whole. No torch, nothing loaded.

Source: the format's own description, https://huggingface.co/docs/safetensors: eight bytes with the header's length,
the header as JSON, then the tensors, in places that the header gives.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from common.mistake import Wrong

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000  # the format's own limit
LFS_POINTER = b"version https://git-lfs"
WEB_PAGES = (b"<!doctype", b"<html")
# bits of an element; names of other kinds are as good, but their sizes are not looked at
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I8": 8, "U8": 8}


class StoredTensor(NamedTuple):
    """One tensor of a file. `dtype` is spelled as the format has it: F32, BF16, F8_E4M3."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name.

    Raises:
        Wrong: it cannot be read, is a pointer of git-lfs, a web page or no safetensors, or is not whole.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            rest = stream.read(min(length, size, MOST_HEADER_BYTES + 1))
    except OSError as error:
        raise Wrong(f"{file}, which cannot be read ({error.strerror})", "a safetensors file", "see to it") from error
    if told := told_by_first_bytes(length.to_bytes(LENGTH_BYTES, "little") + rest[:64]):
        raise Wrong(f"{file}, which is {told[0]}", "the file itself", told[1])
    if size <= LENGTH_BYTES or (rest.startswith(b"{") and size < LENGTH_BYTES + length):
        raise _cut(file, size, "its header alone is longer")
    try:
        header = json.loads(rest)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: StoredTensor(file, str(one["dtype"]), _shape(one)) for name, one in tensors.items()}
        end = max((_end(one) for one in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Wrong(f"{file}, which is no safetensors file", "weights as safetensors", "download it again") from error
    if size != LENGTH_BYTES + length + end:
        raise _cut(file, size, f"its header tells of {LENGTH_BYTES + length + end:,}")
    return found


def told_by_first_bytes(first: bytes) -> tuple[str, str] | None:
    """What a file is in place of the one that was meant to be downloaded, and what to do; None: nothing such."""
    if first.startswith(LFS_POINTER):
        return "a pointer of git-lfs", "fetch the file: git lfs pull"
    if first.lstrip().lower().startswith(WEB_PAGES):
        return "a web page", "download the file itself"
    return None


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in entry["shape"])


def _end(entry: dict[str, Any]) -> int:
    """The end of the tensor, counted from behind the header.

    Raises:
        ValueError: its place has not the size of its elements.
    """
    start, end = map(int, entry["data_offsets"])
    bits = BITS.get(entry["dtype"])
    if bits is not None and (end - start) * 8 != bits * prod(_shape(entry)):
        raise ValueError(f"{end - start} bytes for {entry['shape']} of {entry['dtype']}")
    return end


def _cut(file: Path, size: int, why: str) -> Wrong:
    return Wrong(f"{file} with {size:,} bytes, where {why}", "a whole file", "download it again")
