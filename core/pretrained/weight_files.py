"""Which files of a directory are the model, and what they hold: trainer, engines and checks ask here.

The index decides; without one it is model.safetensors. Other files of weights in the directory are not looked at.
Read from headers alone, without torch, so that a login node can tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from core.pretrained.header import StoredTensor, read_header, told_by_first_bytes
from core.pretrained.quantised import QuantisedWeight, put_together, scheme_of
from core.pretrained.stacked import experts_apart
from modelcfg import ModelShape, hf_tensors, is_carried, stacks

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
ADAPTER = "adapter_config.json"
# what a trainer's or engine's parameters are copied from
DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
TIED_OUTPUT = "lm_head.weight"  # some checkpoints hold it although it is the embedding
COMPUTED = "rotary_emb.inv_freq"  # old checkpoints hold what follows from config.json

ModelTensor = StoredTensor | QuantisedWeight


def weight_files(directory: Path) -> list[Path]:
    """The files that are the model, by name.

    Raises:
        Wrong: there are none, or the index cannot be read or names files that are not there.
    """
    index = directory / INDEX
    if index.is_file():
        files = [directory / name for name in sorted(set(_weight_map(index).values()))]
    elif (directory / WHOLE).is_file():
        files = [directory / WHOLE]
    else:
        raise _no_weights(directory)
    if missing := [file.name for file in files if not file.is_file()]:
        found = f"no {_listed(missing)} in {directory}, named by {INDEX}"
        raise Wrong(found, f"all {len(files)} files of the index", "download what is missing")
    return files


def write_index(directory: Path, places: Mapping[str, str], num_bytes: int) -> None:
    """Write which file of the directory holds each tensor, as `weight_files` reads it."""
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(places)}
    (directory / INDEX).write_text(json.dumps(index, indent=2))


def stored_tensors(directory: Path, config: Mapping[str, Any] | None = None) -> dict[str, ModelTensor]:
    """Every tensor of the model by name, but for those that follow from config.json; a quantised one as a whole.

    Args:
        config: the directory's config.json, where it has been read.
    Raises:
        Wrong: as `weight_files`, `read_header` and `scheme_of`; a tensor is in two files, or not in the one that the
            index names; a quantised one is not whole.
    """
    scheme = scheme_of(directory, config)
    found: dict[str, StoredTensor] = {}
    for file in weight_files(directory):
        for name, tensor in read_header(file).items():
            if name in found:
                remedy = "remove the one that is not the model's, or download the model again"
                raise Wrong(f"{name} in {found[name].file} and in {file.name}", "each tensor once", remedy)
            found[name] = tensor
    index = directory / INDEX
    for name, file_name in _weight_map(index).items() if index.is_file() else ():
        if name not in found or found[name].file.name != file_name:
            remedy = "download index and files of one version"
            raise Wrong(f"no {name} in {directory / file_name}, where {INDEX} has it", "an index that fits", remedy)
    held = {name: tensor for name, tensor in found.items() if not name.endswith(COMPUTED)}
    return dict(held) if scheme is None else put_together(held, scheme)


def misfits(directory: Path, tensors: dict[str, ModelTensor], shape: ModelShape) -> Iterator[Wrong]:
    """What the tensors of a directory have other than a model of this shape, a line for each kind."""
    tensors, wanted = experts_apart(tensors, shape), hf_tensors(shape)
    odd = {name: one for name, one in tensors.items() if one.dtype not in DTYPES}
    if odd:
        name, one = next(iter(odd.items()))
        found = f"{name} in {one.dtype}{_others(odd)}, in {one.file}"
        yield Wrong(found, f"weights in {', '.join(DTYPES.values())}", "use the checkpoint that is not quantised")
    known = {**wanted, TIED_OUTPUT: wanted.get(TIED_OUTPUT, wanted[next(iter(wanted))])}
    known |= {name: stack.shape for name, stack in stacks(shape).items()}
    other = {name: one for name, one in tensors.items() if name in known and one.shape != known[name]}
    if other:
        name, one = next(iter(other.items()))
        found = f"{name} with shape {list(one.shape)}{_others(other)}, in {one.file}"
        yield Wrong(found, f"{list(known[name])}, by config.json", "take config.json and weights of one model")
    if missing := [name for name in wanted if name not in tensors]:
        found = f"no {missing[0]}{_others(missing)} in {directory}"
        yield Wrong(found, "every tensor that config.json asks for", "take config.json and weights of one model")
    unknown = {name: one for name, one in tensors.items() if name not in known and not is_carried(shape, name)}
    if unknown:
        name, one = next(iter(unknown.items()))
        found = f"{name}{_others(unknown)} in {one.file}"
        wanted_only = f"tensors of {shape.architecture} with {shape.num_layers} layers, as config.json says, alone"
        yield Wrong(found, wanted_only, "take config.json and weights of one model")


def fitting_tensors(directory: Path, shape: ModelShape) -> dict[str, ModelTensor]:
    """The tensors of a directory, if they are those of a model of this shape, with what it carries beside them.

    Raises:
        Wrong: they are not, or cannot be read.
    """
    tensors = stored_tensors(directory)
    for wrong in misfits(directory, tensors, shape):
        raise wrong
    return experts_apart(tensors, shape)


def carried_tensors(directory: Path, shape: ModelShape) -> dict[str, ModelTensor]:
    """What a directory holds beside the model, and another one is to hold as well: see `Family.carried`."""
    return {name: one for name, one in stored_tensors(directory).items() if is_carried(shape, name)}


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor to file name, as the index has it."""
    text = index.read_bytes()
    if told := told_by_first_bytes(text[:64]):
        raise Wrong(f"{index}, which is {told[0]}", "the file itself", told[1])
    try:
        found: Any = json.loads(text)["weight_map"]
        plain = bool(found) and all(isinstance(name, str) and Path(name).name == name for name in found.values())
    except (ValueError, TypeError, KeyError, AttributeError):
        plain = False
    if not plain:
        raise Wrong(f"{index} without a weight_map", "the file name of each tensor", "download it again")
    return dict(found)


def _no_weights(directory: Path) -> Wrong:
    if not directory.is_dir():
        return Wrong(f"no folder {directory}", "the folder of a model", "correct the path")
    names = sorted(path.name for path in directory.iterdir())
    if ADAPTER in names:
        remedy = "merge the adapter into its base model, and give that directory"
        return Wrong(f"{directory}, which holds an adapter alone", "a whole model", remedy)
    wanted = f"{WHOLE}, or several files with {INDEX}"
    parts = [name for name in names if name.endswith(".safetensors")]
    if parts:
        remedy = f"download {INDEX} too" if len(parts) > 1 else f"rename it to {WHOLE}, if it is the model"
        return Wrong(f"{_listed(parts)} in {directory} without an index", wanted, remedy)
    others = [name for name in names if name.endswith((".bin", ".gguf", ".pt", ".pth"))]
    beside = f", but {_listed(others)}" if others else ""
    return Wrong(f"{directory} without *.safetensors{beside}", wanted, "download or convert the weights")


def _others(names: Sized) -> str:
    """` and 3 others`, where there are more than the one that is named."""
    more = len(names) - 1
    return f" and {more} {'other' if more == 1 else 'others'}" if more else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
