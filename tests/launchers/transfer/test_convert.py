"""`ebbtide convert`: quantised weights become whole ones, in a directory of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from common.mistake import Wrong
from core.pretrained.model_writer import ModelWriter
from launchers.commands.terminal import Precision
from launchers.transfer.convert import convert
from launchers.transfer.new_directory import PRECISIONS
from tests.support.quantise import in_fp8, quantise
from tests.support.tiny_models import SINKS, tiny_model, with_layer_behind

NO_MODEL = "wanted a model's directory, the name of one in the hub's cache, or package:NAME"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with experts and a layer behind the last in integers, and what these stand for."""
    root = tmp_path_factory.mktemp("convert")
    whole = with_layer_behind(tiny_model("glm4_moe", root / "whole"))
    (whole / "tokenizer.json").write_text("{}")
    quantise(whole, root / "packed", "packed")
    return root


def test_commands_have_a_word_for_each_precision() -> None:
    assert set(get_args(Precision)) == set(PRECISIONS)


def ebbtide(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "launchers", *words], capture_output=True, text=True, check=False)


def test_the_command_writes_what_quantised_weights_stand_for(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = ebbtide("convert", str(models / "packed"), str(out), "--dtype", "float32", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"written: {out} (float32, 0.00 GiB; 100 weights were quantised)")
    found, wanted = load_file(out / "model.safetensors"), load_file(models / "whole" / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    config = json.loads((out / "config.json").read_text())
    assert (config["dtype"], config.get("quantization_config")) == ("float32", None)
    assert (out / "tokenizer.json").is_file()
    again = ebbtide("convert", str(models / "packed"), str(out))
    assert again.returncode == 2
    assert (
        again.stderr == f"found {out}, which is there already; wanted a new folder: choose another name, or remove it\n"
    )


def test_the_precision_is_the_models_own_or_bfloat16(models: Path, tmp_path: Path) -> None:
    wanted = load_file(models / "whole" / "model.safetensors")
    whole = convert(str(models / "whole"), tmp_path / "same", None, verify=False)
    assert (whole.dtype, whole.num_quantised) == ("float32", 0)
    same = load_file(tmp_path / "same" / "model.safetensors")
    assert all(torch.equal(same[name], wanted[name]) for name in wanted)
    assert convert(str(models / "packed"), tmp_path / "short", None, verify=True).dtype == "bfloat16"
    short = load_file(tmp_path / "short" / "model.safetensors")
    fixed = "e_score_correction_bias"  # of routers, which stays in float32
    assert all(
        torch.equal(short[name], one if fixed in name else one.to(short[name].dtype)) for name, one in wanted.items()
    )
    assert short["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_fp8_is_what_transformers_reads_too(tmp_path: Path) -> None:
    """Linear layers in blocks, and nothing else; read here and there they are the same numbers."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    source = tiny_model("qwen3_moe", tmp_path / "source", hidden_size=256)
    made = convert(str(source), tmp_path / "fp8", PRECISIONS["fp8"], verify=True)
    held = load_file(made.directory / "model.safetensors")
    of_layers = {name for name, one in load_file(source / "model.safetensors").items() if one.ndim == 2} - {
        "model.embed_tokens.weight", "lm_head.weight", *(f"model.layers.{layer}.mlp.gate.weight" for layer in range(2))
    }  # fmt: skip
    assert {name for name, one in held.items() if one.dtype == torch.float8_e4m3fn} == of_layers
    assert {one.dtype for name, one in held.items() if name not in of_layers and "_scale_inv" not in name} == {
        torch.bfloat16
    }
    weight, factors = (held[f"model.layers.1.self_attn.o_proj.weight{end}"] for end in ("", "_scale_inv"))
    numbers, wanted = in_fp8(
        load_file(source / "model.safetensors")["model.layers.1.self_attn.o_proj.weight"], (128, 128)
    )
    assert torch.equal(weight.float(), numbers[""].float())
    assert torch.equal(factors, numbers["_scale_inv"])
    convert(str(made.directory), tmp_path / "whole", torch.float32, verify=True)
    assert torch.equal(
        load_file(tmp_path / "whole" / "model.safetensors")["model.layers.1.self_attn.o_proj.weight"], wanted
    )
    how = {"quantization_config": FineGrainedFP8Config(dequantize=True), "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(made.directory, **how)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    tokens = torch.arange(5, 25)[None]
    assert torch.equal(theirs(tokens).logits, ours(tokens).logits)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/none", f"found no model at /none; {NO_MODEL}: correct the path"),
        ("nobody/none", f"found no folder nobody/none, and no such model in the hub's cache .*; {NO_MODEL}: fetch it"),
        ("package:none", "found no model at package:none; "),
    ],
)
def test_what_is_no_model_is_refused(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Wrong, match=message):
        convert(source, tmp_path / "out", None, verify=False)
    assert os.listdir(tmp_path) == []


def test_experts_in_one_tensor_are_made_whole_and_not_written_in_fp8(tmp_path: Path) -> None:
    whole, packed = tmp_path / "whole", tmp_path / "packed"
    quantise(tiny_model(SINKS, whole, intermediate_size=64), packed, "mxfp4")
    made = convert(str(packed), tmp_path / "out", torch.float32, verify=True)
    assert made.num_quantised == 2 * 4  # two tensors of each layer
    wanted, found = (load_file(folder / "model.safetensors") for folder in (whole, made.directory))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(Wrong, match="fp8 for gpt_oss, whose files have all experts of a layer in one tensor"):
        convert(str(whole), tmp_path / "fp8", PRECISIONS["fp8"], verify=False)
    assert not (tmp_path / "fp8").exists()


def test_what_was_written_wrongly_is_found_and_leaves_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ModelWriter.write

    def wrong(writer: ModelWriter, name: str, tensor: torch.Tensor) -> None:
        right(writer, name, tensor + 1 if name == "model.norm.weight" else tensor)

    monkeypatch.setattr(ModelWriter, "write", wrong)
    with pytest.raises(Wrong, match=r"found another model\.norm\.weight in model\.safetensors"):
        convert(str(models / "packed"), tmp_path / "out", None, verify=True)
    assert os.listdir(tmp_path) == []
