"""A model as a new HuggingFace directory: one parameter in memory at a time, the folder whole or not there.

It is written under a hidden name beside its own, and renamed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

import modelcfg
from common.files import flush_all
from common.mistake import Wrong
from common.units import GIB
from core.pretrained.few_bits import FEW_BITS, FewBits
from core.pretrained.header import StoredTensor
from core.pretrained.model_writer import host_bytes, written_model
from core.pretrained.packing import Packing
from core.pretrained.quantised import QuantisedWeight
from core.pretrained.weight_files import carried_tensors, fitting_tensors
from modelcfg import ModelShape, num_parameters

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
IN_FEW_BITS = {getattr(torch, way.scheme.dtype): way for way in FEW_BITS.values()}
PRECISIONS = {
    **{"bfloat16": torch.bfloat16, "float32": torch.float32},
    **{way.word: dtype for dtype, way in IN_FEW_BITS.items()},
}
"""What weights can be written in, by the word for it; few bits: linear layers, and the rest in bfloat16."""


class WholeModel(Protocol):
    """Somebody who has all weights of a model."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a HuggingFace checkpoint by name; each call reads them again."""
        ...


def write_model(
    model: WholeModel,
    directory: Path,
    source: Path,
    shape: ModelShape,
    dtype: torch.dtype,
    *,
    verify: bool,
    told: Callable[[str], None],
    wrote: Callable[[int, int], None],
) -> None:
    """Write the files of a model.

    Args:
        source: the model's directory that config.json, tokenizer and what it carries are copied from.
        dtype: one of PRECISIONS, or another of torch's for all weights.
        verify: read what was written, and compare each weight.
        told: called with what begins. wrote: called with parameters written so far, and all.
    Raises:
        Wrong: there is too little room, or another weight is read than was written.
    """
    packing = _packing(shape, IN_FEW_BITS[dtype]) if dtype in IN_FEW_BITS else None
    refuse_full(directory.parent, num_parameters(shape) * dtype.itemsize)
    dtype = torch.bfloat16 if packing else dtype
    done, whole = 0, num_parameters(shape)
    carried, fixed = carried_tensors(source, shape), modelcfg.fixed_tensors(shape)
    with written_model(directory, source, modelcfg.hf_tensors(shape), dtype, fixed, carried, packing=packing) as writer:
        for name, tensor in model.tensors():
            writer.write(name, tensor)
            done += tensor.numel()
            wrote(done, whole)
    fitting_tensors(directory, shape)
    if verify:
        told("reading it back")
        _compare(model, directory, shape, dtype, packing)


def _packing(shape: ModelShape, way: FewBits) -> Packing:
    packing = Packing.of(shape, way)
    if not packing.names:
        found = f"{way.word} for {shape.architecture}, whose files have all experts of a layer in one tensor"
        raise Wrong(found, "bfloat16 or float32", "write it in one of these")
    return packing


def _compare(
    model: WholeModel, directory: Path, shape: ModelShape, dtype: torch.dtype, packing: Packing | None
) -> None:
    """Hold every weight that was written against the one that it was written from, bit by bit."""
    written, fixed = fitting_tensors(directory, shape), modelcfg.fixed_tensors(shape)
    for name, tensor in model.tensors():
        found, kept = written[name], torch.float32 if name in fixed else dtype
        parts = {found: (tensor, kept)} if isinstance(found, StoredTensor) else _parts(found, tensor, packing)
        if any(part.read() != host_bytes(wanted, of) for part, (wanted, of) in parts.items()):
            raise differs(name, found.file.name)


def _parts(
    found: QuantisedWeight, tensor: Tensor, packing: Packing | None
) -> dict[StoredTensor, tuple[Tensor, torch.dtype]]:
    """Each part of a weight in few bits, with what it was to be."""
    assert packing is not None
    wanted = packing.make(tensor)
    return {part: (wanted[end], wanted[end].dtype) for end, part in found.parts.items()}


def differs(name: str, file: str) -> Wrong:
    """Refuse what was read back."""
    found = f"another {name} in {file} than the one that it was written from"
    return Wrong(found, "equal weights", "write again to another disk: this one, or the memory, is not sound")


def shape_of(directory: Path) -> ModelShape:
    """The shape that a directory's config.json describes.

    Raises:
        Wrong: it describes none, or is no JSON.
    """
    try:
        return modelcfg.from_hf(json.loads((directory / "config.json").read_text()))
    except json.JSONDecodeError as error:
        raise Wrong(f"{directory}/config.json, which is no JSON", "the settings of a model", "put it back") from error


def refuse_full(folder: Path, num_bytes: int) -> None:
    """Raise Wrong where there is no room for the bytes."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        found = f"{free / GIB:.2f} GiB free in {folder}"
        raise Wrong(found, f"{num_bytes / GIB:.2f} GiB for the weights", "make room, or choose another folder")


def refuse_taken(out: Path) -> None:
    """Raise Wrong where something of that name is there."""
    if os.path.lexists(out):
        raise _taken(out)


def no_room(out: Path) -> Wrong:
    """The refusal of a disk that has become full."""
    remedy = "make room, or choose another folder: nothing was left there"
    return Wrong(f"no space left in {out.parent}", "room for the weights", remedy)


@contextmanager
def complete_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside `out`, to write into; on leaving it has its name, or is gone if the block raised."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        flush_all(unfinished)
        try:
            os.rename(unfinished, out)
        except OSError as error:  # somebody was there meanwhile: what he has stays
            raise _taken(out) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _taken(out: Path) -> Wrong:
    return Wrong(f"{out}, which is there already", "a new folder", "choose another name, or remove it")
