"""A HuggingFace directory written tensor by tensor is, byte for byte, that of the safetensors library."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.pretrained.model_writer import written_model
from core.pretrained.side_files import copy_side_files
from core.pretrained.weight_files import INDEX, WHOLE, stored_tensors, weight_files

TENSORS = {
    "model.embed_tokens.weight": torch.arange(28.0).view(7, 4),
    "model.layers.10.norm.weight": torch.rand(5),
    "model.layers.2.norm.weight": torch.rand(3, 5).T,  # not contiguous
    "lm_head.weight": torch.full((1,), float("nan")),
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "additional_chat_templates" / "tools.jinja").write_text("t")
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "float16", "hidden_size": 4}))
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "merges.txt", INDEX, WHOLE):
        (folder / name).write_text("{}")
    return folder


def write(tensors: list[tuple[str, Tensor]], source: Path, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    with written_model(folder, source, SHAPES, dtype, shard_bytes=shard_bytes) as writer:
        for name, tensor in reversed(tensors):  # in any order
            writer.write(name, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_file_is_that_of_the_library(source: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    write(list(TENSORS.items()), source, tmp_path / "out", dtype, 10_000)
    save_file({name: t.to(dtype).contiguous() for name, t in TENSORS.items()}, tmp_path / "whole", {"format": "pt"})
    assert (tmp_path / "out" / WHOLE).read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out" / INDEX).exists()


def test_files_are_filled_in_the_order_of_the_tensors_and_listed(source: Path, tmp_path: Path) -> None:
    write(list(TENSORS.items()), source, tmp_path / "out", torch.float32, 80)  # 112, 20, 60 and 4 bytes
    names = [file.name for file in weight_files(tmp_path / "out")]
    assert names == [f"model-{i:05d}.safetensors" for i in range(3)]
    found = stored_tensors(tmp_path / "out")
    assert {name: (one.file.name, one.shape) for name, one in found.items()} == {
        name: (names[file], SHAPES[name]) for name, file in zip(TENSORS, (0, 1, 1, 2), strict=True)
    }
    assert json.loads((tmp_path / "out" / INDEX).read_text())["metadata"]["total_size"] == 196


def test_side_files_come_along_and_config_names_the_precision(source: Path, tmp_path: Path) -> None:
    write(list(TENSORS.items()), source, tmp_path / "out", torch.bfloat16, 10_000)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"hidden_size": 4, "dtype": "bfloat16"}
    copied = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert copied == {
        "config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "merges.txt", WHOLE,
        "additional_chat_templates/tools.jinja",
    }  # fmt: skip


def test_a_copy_of_side_files_leaves_out_weights(source: Path, tmp_path: Path) -> None:
    (source / "model.bin").write_text("x")
    (tmp_path / "out").mkdir()
    copy_side_files(source, tmp_path / "out")
    assert not {WHOLE, INDEX, "model.bin"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_tensor_too_few_too_many_or_of_another_shape_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("nothing was written for model.embed_tokens.weight")):
        write([(k, t) for k, t in TENSORS.items() if "embed" not in k], source, tmp_path / "a", torch.float32, 80)
    twice = [*TENSORS.items(), ("lm_head.weight", torch.ones(1))]
    with pytest.raises(ValueError, match=re.escape("lm_head.weight: found [1]; wanted a tensor that is still to come")):
        write(twice, source, tmp_path / "b", torch.float32, 80)
    with pytest.raises(ValueError, match=re.escape("lm_head.weight: found [2]; wanted [1]")):
        write([("lm_head.weight", torch.ones(2))], source, tmp_path / "c", torch.float32, 80)
