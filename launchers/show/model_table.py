"""`ebbtide models [NAME]`: the models known by name, and the shape and size of one, known or not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import modelcfg
from common.mistake import Wrong
from common.mistake import show as show_value
from common.units import FP32_BYTES, GIB
from core.config.hub import last_name
from modelcfg import ModelShape

CONFIG = "config.json"
BF16_BYTES = 2
# bf16 parameters; fp32 gradients, masters and two Adam moments
TRAINING_BYTES = BF16_BYTES + 4 * FP32_BYTES
HEADER = ("name", "family", "kind", "layers", "hidden", "heads/kv", "vocab", "parameters", "active", "GiB", "GPUs")
LEFT_ALIGNED = ("name", "family", "kind")
OPTIONAL = ("latent", "delta", "window", "clamp")
SCALINGS = {modelcfg.RopeScaling: "llama3", modelcfg.YarnScaling: "yarn", modelcfg.LinearScaling: "linear"}
GPU_BYTES = 80e9
PER_NODE = 8


def show(name: str | None = None) -> str:
    """The table of all known models, or all that is known of one.

    Args:
        name: of the catalogue, or of the hub if the catalogue has it; a model's directory or its config.json.
    Raises:
        UnknownModelError: with the nearest known name.
        Wrong: the config.json cannot be read, or describes no model that can be trained.
    """
    if name is None:
        return _all()
    path = Path(name)
    if path.exists():
        return _described(path / CONFIG if path.is_dir() else path)
    return _one(modelcfg.load_hub(name) or modelcfg.load(name))


def least_gpus(shape: ModelShape) -> int:
    """GPUs of 80 GB that hold the state of training together: 1, 2, 4 or 8, or nodes of 8."""
    needed = modelcfg.num_parameters(shape) * TRAINING_BYTES / GPU_BYTES
    fitting = [count for count in (1, 2, 4, PER_NODE) if count >= needed]
    return fitting[0] if fitting else math.ceil(needed / PER_NODE) * PER_NODE


def _described(file: Path) -> str:
    """The shape of a config.json, and which entry of the catalogue it is or comes next to."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Wrong(f"{file}, which cannot be read", "a model's config.json", "give its directory") from error
    shape = modelcfg.from_hf(config, name=last_name(str(file.absolute().parent)))
    names, differences = modelcfg.nearest_entries(config)
    if not differences:
        return f"{_one(shape)}\n\nknown as {' and '.join(names)}"
    lines = [f"  {one.field}: {show_value(one.found)} here, {show_value(one.wanted)} there" for one in differences]
    return "\n".join([_one(shape), "", f"not known by name; nearest to {names[0]}, and differs from it:", *lines])


def _all() -> str:
    rows = [HEADER, *(_row(modelcfg.load(name)) for name in modelcfg.names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(shape: ModelShape) -> tuple[str, ...]:
    parameters = modelcfg.num_parameters(shape)
    return (
        shape.name,
        shape.architecture,
        "experts" if shape.num_experts else "dense",
        str(shape.num_layers),
        str(shape.hidden_size),
        f"{shape.num_attention_heads}/{shape.num_query_groups}",
        str(shape.vocab_size),
        f"{parameters / 1e6:.1f} M",
        f"{modelcfg.active_parameters(shape) / 1e6:.1f} M",
        f"{parameters * BF16_BYTES / GIB:.2f}",
        str(least_gpus(shape)),
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if title in LEFT_ALIGNED else cell.rjust(width)
        for cell, width, title in zip(row, widths, HEADER, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _one(shape: ModelShape) -> str:
    parameters = modelcfg.num_parameters(shape)
    last = ("rope_scaling", *OPTIONAL, "router")
    fields = {key: str(value) for key, value in shape if key not in last}
    scaling, router = shape.rope_scaling, shape.router
    fields["rope_scaling"] = "none" if scaling is None else f"{SCALINGS[type(scaling)]} ({scaling!s})"
    fields |= {key: "none" if getattr(shape, key) is None else str(getattr(shape, key)) for key in OPTIONAL}
    fields["router"] = ("softmax" if shape.num_experts else "none") if router is None else f"sigmoid ({router!s})"
    fields |= {f"parameters, {part}": f"{count:,}" for part, count in modelcfg.parameter_parts(shape).items()}
    fields["parameters"] = f"{parameters:,}"
    if shape.num_experts:
        fields["parameters per token"] = f"{modelcfg.active_parameters(shape):,}"
    fields["bytes, bf16 weights"] = _bytes(parameters * BF16_BYTES)
    fields["bytes, fp32 weights"] = _bytes(parameters * FP32_BYTES)
    fields["bytes, bf16 training"] = (
        f"{_bytes(parameters * TRAINING_BYTES)} with fp32 gradients, masters and Adam moments"
    )
    fields["GPUs of 80 GB, at least"] = f"{least_gpus(shape)} (`ebbtide plan` says whether a layout fits)"
    width = max(map(len, fields))
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in fields.items())


def _bytes(count: int) -> str:
    return f"{count:,} ({count / GIB:.2f} GiB)"
