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
BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"I64": 64, "I32": 32, "I8": 8, "U8": 8},
}


class StoredTensor(NamedTuple):
    """One tensor of a file. `dtype` is spelled as the format has it: F32, BF16, F8_E4M3; `start` is its place there."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    def read(self, rows: range | None = None) -> bytearray:
        """Read the tensor's bytes, or those of some rows, alone.

        A mapping of the file would count as memory where that is limited.
        """
        first, count = (0, 1) if rows is None else (rows.start, len(rows))
        width = self.num_bytes if rows is None else self.num_bytes // self.shape[0]
        with self.file.open("rb") as stream:
            stream.seek(self.start + first * width)
            found = bytearray(count * width)
            stream.readinto(found)
        return found


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
        found = {name: _stored(file, LENGTH_BYTES + length, one) for name, one in tensors.items()}
        end = max((one.start + one.num_bytes for one in found.values()), default=LENGTH_BYTES + length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Wrong(f"{file}, which is no safetensors file", "weights as safetensors", "download it again") from error
    if size != end:
        raise _cut(file, size, f"its header tells of {end:,}")
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


def _stored(file: Path, behind_header: int, entry: dict[str, Any]) -> StoredTensor:
    """The tensor of an entry, whose place is counted from behind the header.

    Raises:
        ValueError: its place has not the size of its elements.
    """
    start, end = map(int, entry["data_offsets"])
    bits, shape = BITS.get(entry["dtype"]), _shape(entry)
    if bits is not None and (end - start) * 8 != bits * prod(shape):
        raise ValueError(f"{end - start} bytes for {entry['shape']} of {entry['dtype']}")
    return StoredTensor(file, str(entry["dtype"]), shape, behind_header + start, end - start)


def _cut(file: Path, size: int, why: str) -> Wrong:
    return Wrong(f"{file} with {size:,} bytes, where {why}", "a whole file", "download it again")
