"""Quantised weights: what they stand for, in whole and in part, and directories that hold them in part or otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.mistake import Wrong
from core.checks import check_run_file
from core.config import RunFileError
from core.pretrained.header import read_header
from core.pretrained.quantised import QuantisedWeight, put_together
from core.pretrained.quantised.fp8_blocks import Fp8Blocks
from core.pretrained.quantised.fp8_rows import Fp8Rows
from core.pretrained.quantised.int8_rows import Int8Rows
from core.pretrained.quantised.mxfp4 import Mxfp4
from core.pretrained.quantised.packed_integers import PackedIntegers
from core.pretrained.weight_files import fitting_tensors, stored_tensors
from modelcfg import from_hf
from tests.support.good_run import write_run
from tests.support.quantise import (
    BLOCK,
    GROUP,
    SETTINGS,
    in_fp8,
    in_fp8_rows,
    in_int8_rows,
    in_mxfp4,
    in_packed_integers,
    quantise,
)
from tests.support.tiny_models import SINKS, tiny_model

WEIGHT = "model.layers.0.mlp.up_proj.weight"
RANDOM = torch.rand(130, 88, generator=torch.Generator().manual_seed(0)) - 0.5
KINDS = {
    "fp8": (Fp8Blocks(*BLOCK), in_fp8(RANDOM)),
    "fp8 with factors in bfloat16": (Fp8Blocks(*BLOCK), in_fp8(RANDOM, scales=torch.bfloat16)),
    "fp8 with powers of two": (Fp8Blocks(*BLOCK), in_fp8(RANDOM, scales=torch.float8_e8m0fnu)),
    "packed": (PackedIntegers(4, GROUP), in_packed_integers(RANDOM)),
    "packed in bytes": (PackedIntegers(8, GROUP), in_packed_integers(RANDOM, bits=8)),
    "fp8 with a factor for each row": (Fp8Rows(each=True), in_fp8_rows(RANDOM)),
    "fp8 with one factor": (Fp8Rows(each=False), in_fp8_rows(RANDOM, each=False)),
    "int8 with a factor for each row": (Int8Rows(), in_int8_rows(RANDOM)),
}


@pytest.mark.parametrize(("scheme", "made"), KINDS.values(), ids=KINDS)
def test_a_weight_is_what_its_parts_stand_for(
    scheme: Any, made: tuple[dict[str, Tensor], Tensor], tmp_path: Path
) -> None:
    parts, wanted = made
    file = tmp_path / "model.safetensors"
    save_file({f"w{end}": part.contiguous() for end, part in parts.items()} | {"norm": torch.ones(3)}, file)
    found = put_together(read_header(file), scheme)
    weight = found["w"]
    assert found.keys() == {"w", "norm"}
    assert isinstance(weight, QuantisedWeight)
    assert (weight.shape, weight.dtype, weight.file) == ((130, 88), "BF16", file)
    assert torch.equal(weight.values(), wanted)
    for rows, columns in ((slice(47, 97), slice(None)), (slice(96, 130), slice(11, 81)), (slice(5, 6), slice(0, 1))):
        assert torch.equal(weight.values(rows, columns), wanted[rows, columns])
    assert torch.equal(torch.frombuffer(weight.read(), dtype=torch.bfloat16).view(130, 88), wanted.bfloat16())
    assert weight.num_bytes == len(weight.read())


def test_experts_in_floats_of_four_bits_are_what_transformers_makes_of_them(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    parts, wanted = in_mxfp4(torch.rand(3, 64, 10, generator=torch.Generator().manual_seed(0)) - 0.5)
    file = tmp_path / "model.safetensors"
    save_file({f"w{end}": part.contiguous() for end, part in parts.items()}, file)
    weight = put_together(read_header(file), Mxfp4())["w"]
    assert isinstance(weight, QuantisedWeight)
    assert weight.shape == (3, 64, 10)
    assert torch.equal(weight.values(), wanted)
    assert torch.equal(weight.values(slice(1, 2)), wanted[1:2])
    theirs = convert_moe_packed_tensors(parts["_blocks"], parts["_scales"], dtype=torch.float32)
    assert torch.equal(weight.values(), theirs)
    assert torch.equal(torch.frombuffer(weight.read(), dtype=torch.bfloat16).view(3, 64, 10).float(), wanted)


def test_a_block_of_zeros_stays_one() -> None:
    scheme, weight = Fp8Blocks(4, 4), torch.zeros(6, 8)
    weight[5, 7] = -3.0
    made = scheme.make(weight)
    assert torch.equal(made["_scale_inv"], torch.tensor([[1.0, 1.0], [1.0, 3 / 448]]))
    assert torch.equal(made[""].float(), weight / 3 * 448)


def test_int8_rounds_each_weight_to_the_nearest_of_255() -> None:
    """No number is further off than half a step, a 127th of its row's largest; a row of zeros stays one."""
    weight = torch.randn(64, 200, generator=torch.Generator().manual_seed(3)) * torch.logspace(-4, 2, 64)[:, None]
    weight[5] = 0.0
    made = Int8Rows().make(weight)
    numbers, factors = made[""], made["_scale"]
    assert (numbers.dtype, factors.dtype, factors.shape) == (torch.int8, torch.float32, (64, 1))
    wanted, steps = in_int8_rows(weight)[0].values()
    assert torch.equal(numbers, wanted)
    assert torch.equal(factors, torch.where(steps > 0, steps, 1.0))
    assert numbers.abs().amax(1).tolist() == [0 if row == 5 else 127 for row in range(64)]
    apart = (numbers.float() * factors - weight).abs()
    assert (apart <= factors * 0.5001).all()
    assert (apart / factors)[:5].mean().item() == pytest.approx(0.25, abs=0.01), "even over half a step"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quantised")
    for method in SETTINGS:
        kind, changes = (SINKS, {"intermediate_size": 64}) if method == "mxfp4" else ("qwen3", {})
        quantise(tiny_model(kind, root / f"whole-{method}", **changes), root / method, method)
    return root


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


def settings(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] |= changes
    file.write_text(json.dumps(config))


def group(folder: Path, **changes: Any) -> None:
    group = SETTINGS["packed"]["config_groups"]["group_0"]
    settings(folder, config_groups={"group_0": {**group, "weights": group["weights"] | changes}})


def activations(folder: Path, dynamic: bool) -> None:
    group = SETTINGS["fp8-rows"]["config_groups"]["group_0"]
    settings(folder, config_groups={"group_0": {**group, "input_activations": {"num_bits": 8, "dynamic": dynamic}}})


NOT_KNOWN = (
    "wanted weights that are not quantised, or in fp8 with scales of blocks or rows, in int8 with scales of rows, in "
    "packed integers, or in mxfp4"
)
FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no scale": (
        "fp8",
        lambda f: change(f, lambda t: t.pop(f"{WEIGHT}_scale_inv")),
        f"found no {WEIGHT}_scale_inv; wanted [4, 2], as the quantised weight beside it has it",
    ),
    "a scale of another shape": (
        "packed",
        lambda f: change(f, lambda t: t.update({f"{WEIGHT}_scale": torch.ones(160, 2)})),
        f"found shape [160, 2] of {WEIGHT}_scale; wanted [160, 8]",
    ),
    "a scale of nothing": (
        "fp8",
        lambda f: change(f, lambda t: t.update({WEIGHT: t[WEIGHT].bfloat16()})),
        f"found {WEIGHT}_scale_inv in ",
    ),
    "no powers of two": (
        "mxfp4",
        lambda f: change(f, lambda t: t.pop("model.layers.0.mlp.experts.down_proj_scales")),
        "found no model.layers.0.mlp.experts.down_proj_scales; wanted [8, 64, 2], as the quantised weight",
    ),
    "numbers of another scheme": (
        "packed",
        lambda f: change(f, lambda t: t.update({f"{WEIGHT}_packed": t[f"{WEIGHT}_packed"].to(torch.uint8)})),
        f"{WEIGHT}_shape in I64 and 1 other",
    ),
    "one scale for all": ("fp8", lambda f: settings(f, weight_block_size=None), NOT_KNOWN),
    "e5m2": ("fp8", lambda f: settings(f, fmt="e5m2"), NOT_KNOWN),
    "another method": (
        "fp8",
        lambda f: settings(f, quant_method="awq"),
        "found quantised weights (quantization_config: awq",
    ),
    "zero points": ("packed", lambda f: group(f, symmetric=False), NOT_KNOWN),
    "another order": ("packed", lambda f: group(f, actorder="group"), NOT_KNOWN),
    "activations with scales of their own": ("fp8-rows", lambda f: activations(f, dynamic=False), NOT_KNOWN),
    "rows": ("packed", lambda f: group(f, strategy="channel"), NOT_KNOWN),
}


@pytest.mark.parametrize(("method", "break_it", "message"), FAULTS.values(), ids=FAULTS)
def test_what_is_not_whole_or_not_known_is_refused(
    method: str, break_it: Callable[[Path], None], message: str, models: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(models / method, tmp_path / "model")
    shape = from_hf(json.loads((directory / "config.json").read_text()))
    assert fitting_tensors(directory, shape)
    break_it(directory)
    with pytest.raises(Wrong) as error:
        fitting_tensors(directory, shape)
    assert message in str(error.value)


def test_a_run_without_a_trainer_wants_whole_weights(models: Path, tmp_path: Path) -> None:
    file = write_run(tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(tmp_path / "model" / name, models / "fp8" / name)
    overrides = [f"model.path={models / 'fp8'}"]
    check_run_file(file, overrides)
    with pytest.raises(
        RunFileError, match=r"fp8, whose weights are quantised, with placement.trainers none; wanted whole"
    ):
        check_run_file(file, [*overrides, "placement.trainers=none"])


def test_activations_that_an_engine_would_quantise_are_no_matter(models: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(models / "fp8-rows", tmp_path / "model")
    activations(directory, dynamic=True)
    weight = stored_tensors(directory)[WEIGHT]
    assert isinstance(weight, QuantisedWeight)
    assert torch.equal(weight.values(), load_file(models / "whole-fp8-rows" / "model.safetensors")[WEIGHT])
