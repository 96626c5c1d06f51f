"""Each family's table against the files that transformers writes of a model of its class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import modelcfg
from core.megatron.state.names import Entry, join, split
from modelcfg.families import families
from tests.support.loaded_tensors import loaded_tensors
from tests.support.tiny_models import tiny_model

CPU_ENGINE = Path(__file__).parents[2] / "core" / "sglang" / "cpu_shim" / "ebbtide_engine_models"
SHAPE = modelcfg.load("smollm2-135m")


@pytest.mark.parametrize("family", families())
def test_names_and_shapes_are_those_of_a_written_model(family: str, tmp_path: Path) -> None:
    directory = tiny_model(family, tmp_path / "model")
    shape = modelcfg.from_hf(json.loads((directory / "config.json").read_text()))
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if not modelcfg.is_carried(shape, name)]  # noqa: SIM118
        wanted = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    assert loaded_tensors(shape) == wanted


@pytest.mark.parametrize("family", families())
def test_a_family_is_named_after_its_module_and_its_class_is_among_the_cpu_engines(family: str) -> None:
    assert (Path(modelcfg.__file__).parent / "families" / f"{family}.py").is_file()
    served = CPU_ENGINE / f"{family}.py"
    assert served.is_file() != bool(families()[family].not_on_cpus)
    assert not served.is_file() or families()[family].hf_class in served.read_text(encoding="utf-8")


def test_a_shape_of_no_family_is_refused() -> None:
    fields = SHAPE.model_dump() | {"architecture": "gpt2"}
    with pytest.raises(ValueError, match="no family gpt2: wanted one of " + ", ".join(sorted(families()))):
        modelcfg.ModelShape.model_validate(fields)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_gate_and_up_may_be_two_tensors_or_one(ranks: int) -> None:
    """Either way a rank has its part of the gate above its part of the up projection."""
    gate, up = torch.arange(24.0).view(8, 3), 100 + torch.arange(24.0).view(8, 3)
    two = Entry(0, "fc1", ("gate", "up"), "gate_up", ((8, 3), (8, 3)))
    one = Entry(0, "fc1", ("both",), "gate_up", ((16, 3),))
    tensors = {"gate": gate, "up": up, "both": torch.cat([gate, up])}

    def read(name: str, rows: slice, columns: slice) -> Tensor:
        return tensors[name][rows, columns]

    width = 8 // ranks
    for entry in (two, one):
        parts = [split(entry, read, SHAPE, rank, ranks) for rank in range(ranks)]
        for rank, part in enumerate(parts):
            own = slice(rank * width, (rank + 1) * width)
            assert torch.equal(part, torch.cat([gate[own], up[own]]))
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in join(entry, parts, SHAPE))
