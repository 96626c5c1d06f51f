"""Models in few bits, made from whole ones by the published formulas, written here apart from those that read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK = (48, 40)  # so that tiny weights have several blocks, and cut ones
GROUP = 8
DIMENSIONS = {"mxfp4": 3}  # of the weights that are in few bits, where they are no matrices
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
WHOLE = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight")


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    """Settings of compressed-tensors."""
    group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False, "actorder": None, **weights}}
    groups = {"config_groups": {"group_0": {"input_activations": None, **group}}}
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"], **groups}


SETTINGS: dict[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [*BLOCK]},
    "packed": compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=GROUP),
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.mlp.router", "lm_head"]},
    "fp8-rows": compressed("float-quantized", num_bits=8, type="float", strategy="channel", group_size=None),
    "int8-rows": compressed("int-quantized", num_bits=8, type="int", strategy="channel", group_size=None),
}


def quantise(directory: Path, target: Path, method: str) -> None:
    """Write a model in few bits to `target`; the model itself becomes what these stand for.

    Args:
        method: a key of SETTINGS.
    """
    shutil.copytree(directory, target)
    config = json.loads((directory / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": SETTINGS[method]}))
    whole, stored = load_file(directory / "model.safetensors"), {}
    for name, weight in list(whole.items()):
        if weight.ndim != DIMENSIONS.get(method, 2) or name.endswith(WHOLE):
            stored[name] = weight
            continue
        parts, value = MADE[method](weight)
        stored |= {name + end: part.contiguous() for end, part in parts.items()}
        whole[name] = value.to(weight.dtype)
    save_file(stored, target / "model.safetensors", {"format": "pt"})
    save_file(whole, directory / "model.safetensors", {"format": "pt"})


def in_fp8(
    weight: Tensor, block: tuple[int, int] = BLOCK, scales: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], Tensor]:
    """What a file holds of a weight, by what its names end with, and what that stands for."""
    numbers, value = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight, dtype=torch.float32)
    (rows, columns), (high, wide) = weight.shape, block
    factors = torch.empty(-(-rows // high), -(-columns // wide))
    for i, j in product(range(factors.shape[0]), range(factors.shape[1])):
        place = slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide)
        factor = weight[place].float().abs().max() / 448
        factors[i, j] = 2.0 ** factor.log2().ceil() if scales == torch.float8_e8m0fnu else factor.to(scales)
        numbers[place] = (weight[place].float() / factors[i, j]).to(numbers.dtype)
        value[place] = numbers[place].float() * factors[i, j]
    return {"": numbers, "_scale_inv": factors.to(scales)}, value


def in_packed_integers(weight: Tensor, bits: int = 4) -> tuple[dict[str, Tensor], Tensor]:
    """The same, packed by the library whose format it is."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    groups = weight.float().view(weight.shape[0], -1, GROUP)
    most = 2 ** (bits - 1) - 1
    scale = (groups.abs().amax(-1) / most).bfloat16()
    numbers = (groups / scale.float()[..., None]).round().clamp(-most - 1, most)
    packed = pack_to_int32(numbers.flatten(1).to(torch.int8), bits)
    parts = {"_packed": packed, "_scale": scale, "_shape": torch.tensor(weight.shape)}
    return parts, (numbers * scale.float()[..., None]).flatten(1)


def in_fp8_rows(weight: Tensor, each: bool = True) -> tuple[dict[str, Tensor], Tensor]:
    """The same, in fp8 with a scale for each row, or one for all."""
    most = weight.float().abs().amax(1, keepdim=True) if each else weight.float().abs().max().view(1)
    factors = (most / 448).bfloat16()
    numbers = (weight.float() / factors.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"": numbers, "_scale": factors}, numbers.float() * factors.float()


def in_int8_rows(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The same, in int8 with a scale for each row."""
    steps = torch.stack([row.abs().max() / 127 for row in weight.float()])[:, None]
    numbers = torch.where(steps > 0, (weight.float() / steps).round(), 0.0)
    return {"": numbers.to(torch.int8), "_scale": steps}, numbers * steps


def in_mxfp4(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The same of [E, I, O], with a power of two for each 32 inputs: the nearest float of 4 bits, and a sign."""
    groups = weight.float().mT.unflatten(-1, (-1, 32))  # [E, O, I / 32, 32]
    powers = groups.abs().amax(-1, keepdim=True).log2().floor() - 2
    scaled = groups / 2.0**powers
    numbers = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    value = (E2M1[numbers] * scaled.sign() * 2.0**powers).flatten(-2).mT
    codes = (numbers + 8 * (scaled < 0)).to(torch.uint8)
    parts = {"_blocks": codes[..., ::2] | codes[..., 1::2] << 4, "_scales": (powers[..., 0] + 127).to(torch.uint8)}
    return parts, value.contiguous()


MADE: dict[str, Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]] = {
    "fp8": in_fp8,
    "packed": in_packed_integers,
    "mxfp4": in_mxfp4,
    "fp8-rows": in_fp8_rows,
    "int8-rows": in_int8_rows,
}
