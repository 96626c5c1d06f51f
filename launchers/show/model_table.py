"""`ebbtide models [NAME]`: the models known by name, and the shape and size of one of them."""

from __future__ import annotations

import modelcfg
from common.units import FP32_BYTES, GIB
from modelcfg import ModelShape

BF16_BYTES = 2
# bf16 parameters; fp32 gradients, masters and two Adam moments
TRAINING_BYTES = BF16_BYTES + 4 * FP32_BYTES
HEADER = ("name", "family", "layers", "hidden", "heads/kv", "vocab", "parameters", "bf16 GiB")
LEFT_ALIGNED = ("name", "family")


def show(name: str | None = None) -> str:
    """The table of all known models, or all that is known of the model `name`.

    Raises:
        UnknownModelError: with the nearest known name.
    """
    return _one(modelcfg.load(name)) if name is not None else _all()


def _all() -> str:
    rows = [HEADER, *(_row(modelcfg.load(name)) for name in modelcfg.names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(shape: ModelShape) -> tuple[str, ...]:
    parameters = modelcfg.num_parameters(shape)
    return (
        shape.name,
        shape.architecture,
        str(shape.num_layers),
        str(shape.hidden_size),
        f"{shape.num_attention_heads}/{shape.num_query_groups}",
        str(shape.vocab_size),
        f"{parameters / 1e6:.1f} M",
        f"{parameters * BF16_BYTES / GIB:.2f}",
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if title in LEFT_ALIGNED else cell.rjust(width)
        for cell, width, title in zip(row, widths, HEADER, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _one(shape: ModelShape) -> str:
    parameters = modelcfg.num_parameters(shape)
    fields = {key: str(value) for key, value in shape if key != "rope_scaling"}
    scaling = shape.rope_scaling
    fields["rope_scaling"] = "none" if scaling is None else f"llama3 ({scaling!s})"
    fields |= {f"parameters, {part}": f"{count:,}" for part, count in modelcfg.parameter_parts(shape).items()}
    fields["parameters"] = f"{parameters:,}"
    if shape.num_experts:
        fields["parameters per token"] = f"{modelcfg.active_parameters(shape):,}"
    fields["bytes, bf16 weights"] = _bytes(parameters * BF16_BYTES)
    fields["bytes, fp32 weights"] = _bytes(parameters * FP32_BYTES)
    fields["bytes, bf16 training"] = (
        f"{_bytes(parameters * TRAINING_BYTES)} with fp32 gradients, masters and Adam moments"
    )
    width = max(map(len, fields))
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in fields.items())


def _bytes(count: int) -> str:
    return f"{count:,} ({count / GIB:.2f} GiB)"
