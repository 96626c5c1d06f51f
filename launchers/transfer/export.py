"""A run's checkpoint as a HuggingFace directory: no engine, GPU or process group, one parameter in memory at a time.

Of a run that has trained adapters they are merged, or written alone as a directory for PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from common.mistake import Wrong
from core.config import load_run_file
from core.config.schema import RunConfig
from core.config.sections.lora import LoraConfig
from core.loop.manifest import inspect_checkpoint
from core.megatron.state.stored import StoredModel
from core.megatron.state.stored_adapters import StoredAdapters, stored_model
from core.pretrained.locate import locate
from core.pretrained.peft_directory import write_peft
from core.pretrained.weight_files import weight_files
from core.run_dir.run_directory import RunDirectory
from launchers.transfer.new_directory import (
    IN_FEW_BITS,
    NO_ROOM,
    complete_or_nothing,
    differs,
    no_room,
    refuse_taken,
    shape_of,
    write_model,
)


@dataclass(frozen=True)
class Exported:
    """What was written. `dtype` is that of the weights, as config.json names it."""

    directory: Path
    step: int
    dtype: str
    num_files: int
    num_bytes: int


def export(
    run: RunDirectory,
    step: int | None,
    out: Path,
    dtype: torch.dtype | None,
    *,
    verify: bool,
    adapters: bool = False,
    told: Callable[[str], None] = lambda _: None,
    wrote: Callable[[int, int], None] = lambda _, __: None,
) -> Exported:
    """Write the model of a checkpoint to a new folder.

    Args:
        step: how many steps the checkpoint holds; None: the newest one.
        dtype: of the weights; None: as the trainer has them.
        verify: read what was written, and compare each weight with the checkpoint's.
        adapters: write them alone, as a directory for PEFT, in the precision that the trainer has them in.
        told: called with what begins.
        wrote: called with parameters written so far, and all.
    Raises:
        Wrong: the place is taken or too small; the step is missing or damaged; the run's model is not there any more.
    """
    out = out.absolute()
    refuse_taken(out)
    step = _existing_step(run, step)
    config = load_run_file(run.run_file)
    lora = config.train.lora
    source = _source(run, config, needs_weights=lora is not None)
    shape = shape_of(source)
    if adapters and dtype in IN_FEW_BITS:
        found = f"{IN_FEW_BITS[dtype].word} for adapters"
        raise Wrong(found, "bfloat16 or float32, as PEFT reads them", "choose another --dtype")
    if adapters and lora is None:
        remedy = "leave --adapters out, to have the model whole"
        raise Wrong(f"{run.path}, a run without train.lora", "one that has trained adapters", remedy)
    folder = run.checkpoint(step)
    told(f"checking {folder}")
    problem, _ = inspect_checkpoint(folder)
    if problem:
        others = [other for other in run.checkpoint_steps() if other != step]
        remedy = f"choose with --step: {_listed(others)}" if others else "there is no other: let the run write one"
        raise Wrong(f"{folder}, which is damaged: {problem}", "a whole checkpoint", remedy)
    with complete_or_nothing(out) as unfinished, _told_why(folder, out):
        stored = stored_model(folder / "trainer", shape, lora, source)
        dtype = dtype or stored.dtype
        told(f"writing {out}")
        if lora is not None and adapters:
            files = _write_adapters(stored, unfinished, lora, source, dtype, verify=verify)
        else:
            write_model(stored, unfinished, source, shape, dtype, verify=verify, told=told, wrote=wrote)
            files = weight_files(unfinished)
        num_bytes = sum(file.stat().st_size for file in files)
    return Exported(out, step, str(dtype).removeprefix("torch."), len(files), num_bytes)


def _write_adapters(
    stored: StoredModel, directory: Path, lora: LoraConfig, source: Path, dtype: torch.dtype, *, verify: bool
) -> list[Path]:
    """The files of weights."""
    assert isinstance(stored, StoredAdapters)
    tensors = {name: tensor.to(dtype) for name, tensor in stored.adapters.items()}
    file = write_peft(directory, tensors, lora, stored.targets, str(source))
    if verify:
        written = load_file(file)
        differing = [name for name in tensors if not torch.equal(tensors[name], written[name])]
        if differing:
            raise differs(differing[0], file.name)
    return [file]


def _existing_step(run: RunDirectory, step: int | None) -> int:
    steps = run.checkpoint_steps()
    if not steps:
        remedy = "wait for its first, or set checkpoint.interval or checkpoint.every"
        raise Wrong(f"no checkpoint in {run.checkpoints}", "one that the run has written", remedy)
    if step is not None and step not in steps:
        found = f"no checkpoint of step {step} in {run.checkpoints}"
        raise Wrong(found, f"one of the steps {_listed(steps)}", "choose one of them with --step")
    return steps[-1] if step is None else step


def _source(run: RunDirectory, config: RunConfig, *, needs_weights: bool) -> Path:
    """The folder with config.json and tokenizer; if the run's model is gone, the run's own copy does as well.

    Args:
        needs_weights: of the model as it was before the run, which the copy has not.
    """
    path = config.model.path
    try:
        return locate(path)
    except ValueError as error:
        if (run.hf_model / "config.json").is_file() and not needs_weights:
            return run.hf_model
        wanted = "the model that has the adapters" if needs_weights else "config.json and tokenizer of the run's model"
        remedy = f"put it back, or set model.path in {run.run_file}"
        raise Wrong(f"no model at {path}", wanted, remedy) from error


@contextmanager
def _told_why(folder: Path, out: Path) -> Iterator[None]:
    """What the machine refuses in the middle, in words that help."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(out) from error
        if not folder.is_dir():
            remedy = "choose a newer step, or set checkpoint.keep higher"
            raise Wrong(f"{folder}, which the run removed meanwhile", "a checkpoint that stays", remedy) from error
        raise


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
