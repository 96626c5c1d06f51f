"""The file of a checkpoint with the groups that the next step goes on with; there is none if there are no such groups.

    8 bytes  length of the header
    header   JSON: one entry per group: position, step and number where it was drawn, number of its samples
    rest     the samples of all groups, as `core.rollout.sample_bytes` packs them

Prompts are not written: they stand in the data, at their position.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.rollout.carried import Carried, Origin
from core.rollout.sample_bytes import DamagedSamples, pack, unpack
from core.samples import Prompt

FILE = "carried.bin"
HEADER_BYTES = 8
NO_PROMPT = Prompt(row=-1, text="", tokens=(), label=None)  # until the request of the next step puts it there


def write_carried(folder: Path, groups: Sequence[Carried]) -> None:
    """Write the groups into a folder; nothing where there are none."""
    if not groups:
        return
    header = json.dumps([[*one.origin, len(one.samples)] for one in groups]).encode("ascii")
    samples = [replace(sample, group=number) for number, one in enumerate(groups) for sample in one.samples]
    (folder / FILE).write_bytes(len(header).to_bytes(HEADER_BYTES, "little") + header + pack(samples))


def read_carried(folder: Path) -> tuple[Carried, ...]:
    """The groups that were written into a folder; the prompts of their samples are empty.

    Raises:
        DamagedSamples: the file is not what `write_carried` writes.
    """
    file = folder / FILE
    if not file.exists():
        return ()
    data = file.read_bytes()
    start = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")
    try:
        entries = [(Origin(*entry[:3]), int(entry[3])) for entry in json.loads(data[HEADER_BYTES:start])]
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedSamples(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    samples = iter(unpack(data[start:], [NO_PROMPT] * len(entries)))
    return tuple(Carried(origin, tuple(next(samples) for _ in range(count))) for origin, count in entries)
