"""Step records as HDF5 files under RUN_DIR/steps, each complete from the moment it can be seen.

A file is written under a hidden name beside its place and renamed: a reader never meets half a file, and needs no lock.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common.files import renamed_when_complete
from core.run_dir.run_directory import RunDirectory
from core.trajectory.ragged import Ragged
from core.trajectory.record import StepRecord

SCHEMA_VERSION = 1
STEP_FILE = re.compile(r"step_(\d{6,})\.h5")
# all other ragged fields run along the response
OFFSETS = {"prompt_tokens": "prompt_offsets", "routing": "routing_offsets"}
RESPONSE_OFFSETS = "response_offsets"
EVAL_FILE = re.compile(r"eval_(.+)_(\d{6,})\.h5")
ATTRIBUTES = ("step", "run", "model", "dtype", "created", "metrics")
RAGGED = (
    "prompt_tokens",
    "response_tokens",
    "loss_mask",
    "logprobs_engine",
    "logprobs_old",
    "logprobs_ref",
    "logprobs_policy",
    "token_advantage",
    "routing",
)
PARTS = "reward_parts"  # a group with a dataset for each name
TEXTS = ("status", "weight_version", "engine", "failure", "label", "prompt_text", "response_text", "turns")
OPTIONAL = ("logprobs_ref", "logprobs_policy", "seed", "task", "token_advantage", "turns", PARTS, "routing")
FAST = ("routing",)  # as large as all else together times ten, and next to random


class TrajectoryError(ValueError):
    """A step file that cannot be read. The message names it and says what to do."""


def step_path(run_dir: Path, step: int) -> Path:
    """RUN_DIR/steps/step_000012.h5 for step 12."""
    return RunDirectory(run_dir).steps / f"step_{step:06d}.h5"


def evaluation_path(run_dir: Path, name: str, step: int) -> Path:
    """RUN_DIR/steps/eval_held_out_000012.h5 for an evaluation of the set held_out before step 12."""
    return RunDirectory(run_dir).steps / f"eval_{_file_name(name)}_{step:06d}.h5"


def list_evaluations(run_dir: Path, name: str) -> list[int]:
    """The steps before which the evaluation of a set is stored, in order."""
    found = (EVAL_FILE.fullmatch(file.name) for file in RunDirectory(run_dir).steps.glob("eval_*.h5"))
    return sorted(int(one[2]) for one in found if one and one[1] == _file_name(name))


def evaluated_sets(run_dir: Path) -> list[str]:
    """The names of sets as their files have them, in order."""
    found = (EVAL_FILE.fullmatch(file.name) for file in RunDirectory(run_dir).steps.glob("eval_*.h5"))
    return sorted({one[1] for one in found if one})


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def list_steps(run_dir: Path) -> list[int]:
    """The steps that are stored, in order; empty if there are none yet."""
    names = (STEP_FILE.fullmatch(file.name) for file in RunDirectory(run_dir).steps.glob("*.h5"))
    return sorted(int(name[1]) for name in names if name)


def write_step(path: Path, record: StepRecord) -> None:
    """Write `record` to `path`, in place of a file that is there. Atomic, and on the disk when it returns.

    Collective: none; one process per path.

    Raises:
        OSError: the disk is full, or is not to be written: told in the system's own words, with the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed_when_complete(path) as unfinished:
        unfinished.write_bytes(_image(record))


def _image(record: StepRecord) -> bytes:
    """The bytes of the file: made in memory, for HDF5 tells of a full disk in a paragraph of its own."""
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        _write(file, record)
        file.flush()
        return bytes(file.id.get_file_image())


def read_step(path: Path) -> StepRecord:
    """The record in `path`.

    Raises:
        TrajectoryError: no such file, or one that is damaged, not a step file, or of another schema version.
    """
    if not path.is_file():
        raise TrajectoryError(
            f"no step file {path}; wanted one of steps {list_steps(path.parent.parent) or '(none yet)'}"
        )
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read(file)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise TrajectoryError(
            f"{path} cannot be read: {error}; wanted a whole step file of schema version {SCHEMA_VERSION}: remove it, "
            "or bring it back from a copy"
        ) from error


def _write(file: h5py.File, record: StepRecord) -> None:
    file.attrs["schema_version"] = SCHEMA_VERSION
    for name in ATTRIBUTES:
        value = getattr(record, name)
        file.attrs[name] = json.dumps(dict(value)) if name == "metrics" else value
    _write_array(file, RESPONSE_OFFSETS, record.response_tokens.offsets)
    for name, offsets in OFFSETS.items():
        if (ragged := getattr(record, name)) is not None:
            _write_array(file, offsets, ragged.offsets)
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in ATTRIBUTES or value is None:
            continue
        if field.name in TEXTS:
            file.create_dataset(field.name, data=list(value), shape=(len(value),), dtype=h5py.string_dtype())
        elif field.name == PARTS:
            for part, values in value.items():
                _write_array(file, f"{PARTS}/{part}", values)
        else:
            _write_array(file, field.name, value.values if isinstance(value, Ragged) else value)


def _write_array(file: h5py.File, name: str, values: Any) -> None:
    # HDF5 cannot cut an empty dataset into chunks, which the filters work on
    filters = {"compression": "gzip", "shuffle": True, "fletcher32": True} if values.size else {}
    if filters and name in FAST:
        filters["compression_opts"] = 1
    file.create_dataset(name, data=values, **filters)


def _read(file: h5py.File) -> StepRecord:
    version = file.attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {version}")
    contents: dict[str, Any] = {name: _attribute(file, name) for name in ATTRIBUTES}
    for field in fields(StepRecord):
        if field.name in ATTRIBUTES or (field.name in OPTIONAL and field.name not in file):
            continue
        contents[field.name] = _dataset(file, field.name)
    return _consistent(StepRecord(**contents))


def _attribute(file: h5py.File, name: str) -> Any:
    value = file.attrs[name]
    if name == "metrics":
        return json.loads(value)
    return int(value) if name == "step" else value


def _dataset(file: h5py.File, name: str) -> Any:
    if name in TEXTS:
        return tuple(file[name].asstr()[:])
    if name in RAGGED:
        return Ragged(file[name][:], file[OFFSETS.get(name, RESPONSE_OFFSETS)][:])
    if name == PARTS:
        return {part: values[:] for part, values in file[name].items()}
    return file[name][:]


def _consistent(record: StepRecord) -> StepRecord:
    """Every field has one entry per sample."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    for name, value in [*values.items(), *(record.reward_parts or {}).items()]:
        if isinstance(value, Ragged | tuple | np.ndarray) and len(value) != len(record):
            raise ValueError(f"{name} has {len(value)} entries, reward {len(record)}")
    return record
