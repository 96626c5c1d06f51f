"""Directories that are not the model that they seem to be, and those that are although they hold more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.mistake import Wrong
from core.checks import ModelFiles, chat_template
from core.checks.model import directories, name_and_shape
from core.config import load_run_file
from core.config.schema import RunConfig
from core.pretrained.header import read_header
from core.pretrained.weight_files import INDEX, carried_tensors, fitting_tensors, stored_tensors, weight_files
from modelcfg import ModelShape, from_hf, load, names
from modelcfg.tensors import hf_tensors
from tests.support.good_run import SHAPE, write_model, write_run, write_weights
from tests.support.loaded_tensors import loaded_tensors

SHAPES = hf_tensors(SHAPE)
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
BIAS = "model.layers.3.self_attn.q_proj.bias"


def write_index(folder: Path, **files: list[str]) -> None:
    """Shards with these tensors, and their index; model.safetensors makes way."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    weight_map = {}
    for file, held in files.items():
        write_weights(folder / f"{file}.safetensors", {name: SHAPES[name] for name in held})
        weight_map |= dict.fromkeys(held, f"{file}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def halves(folder: Path) -> None:
    some, others = [list(SHAPES)[:5], list(SHAPES)[5:]]
    write_index(folder, a=some, b=others)


def set_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder: Path, dtype: str = "BF16", **changes: tuple[int, ...] | None) -> None:
    """The one file with other tensors; a dot is spelled __, None leaves a tensor out."""
    other = SHAPES | {name.replace("__", "."): shape for name, shape in changes.items()}
    write_weights(folder / "model.safetensors", {k: v for k, v in other.items() if v is not None}, dtype)


def shards_without_one(folder: Path) -> None:
    halves(folder)
    (folder / "b.safetensors").unlink()


def a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def a_cut_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)


def a_cut_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))


def an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shards_without_index(folder: Path) -> None:
    halves(folder)
    (folder / INDEX).unlink()


def a_tensor_twice(folder: Path) -> None:
    halves(folder)
    write_weights(folder / "a.safetensors", SHAPES)


def an_index_of_another_version(folder: Path) -> None:
    halves(folder)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NORM] = "a.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def an_index_that_leads_out(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {NORM: "../model.safetensors"}}))


def a_tokenizer_pointer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "fp8": (
        lambda f: rewrite(f, "F8_E4M3"),
        f"{EMBEDDING} in F8_E4M3 and 49 others, in ",
        "float32, bfloat16, float16",
    ),
    "int8": (lambda f: rewrite(f, "I8"), "in I8", "not quantised"),
    "quantization_config": (
        lambda f: set_config(f, quantization_config={"quant_method": "fp8"}),
        "quantised weights (quantization_config: fp8, DIR/model)",
        "not quantised",
    ),
    "vocabulary smaller in config.json": (
        lambda f: set_config(f, vocab_size=500),
        f"{EMBEDDING} with shape [512, 48], in ",
        "[500, 48], by config.json",
    ),
    "feed-forward larger in config.json": (
        lambda f: set_config(f, intermediate_size=128),
        "and 11 others",
        "[128, 48]",
    ),
    "fewer layers in config.json": (
        lambda f: set_config(f, num_hidden_layers=3),
        "model.layers.3.input_layernorm.weight and 11 others in ",
        "qwen2 with 3 layers",
    ),
    "more layers in config.json": (
        lambda f: set_config(f, num_hidden_layers=5),
        "no model.layers.4.input_layernorm.weight and 11 others in ",
        "every tensor",
    ),
    "biases left over": (
        lambda f: set_config(f, architectures=["LlamaForCausalLM"]),
        "model.layers.0.self_attn.q_proj.bias and 11 others in ",
        "llama with 4 layers",
    ),
    "a bias missing": (lambda f: rewrite(f, **{BIAS.replace(".", "__"): None}), f"no {BIAS} in ", "every tensor"),
    "a tensor of another model": (lambda f: rewrite(f, visual__weight=(4,)), "visual.weight in ", "alone"),
    "missing shard": (shards_without_one, f"no b.safetensors in DIR/model, named by {INDEX}", "all 2 files"),
    "git-lfs pointer": (a_pointer, "DIR/model/model.safetensors, which is a pointer of git-lfs", "git lfs pull"),
    "cut file": (a_cut_file, "DIR/model/model.safetensors with ", "download it again"),
    "cut header": (a_cut_header, "DIR/model/model.safetensors with 100 bytes", "download it again"),
    "no safetensors": (no_safetensors, "DIR/model/model.safetensors, which is no safetensors file", "download"),
    "adapter only": (an_adapter, "DIR/model, which holds an adapter alone", "merge the adapter"),
    "pickled weights": (a_pickle, "without *.safetensors, but pytorch_model.bin", "convert"),
    "shards without index": (shards_without_index, "a.safetensors, b.safetensors in DIR/model", "download model.safe"),
    "a tensor twice": (a_tensor_twice, "in DIR/model/a.safetensors and in b.safetensors", "each tensor once"),
    "index of another version": (an_index_of_another_version, f"no {NORM} in DIR/model/a.safetensors", "one version"),
    "index that leads out": (an_index_that_leads_out, f"DIR/model/{INDEX} without a weight_map", "file name of each"),
    "tokenizer is a pointer": (a_tokenizer_pointer, "DIR/model/tokenizer.json, which is a pointer", "git lfs pull"),
    "no chat template": (lambda f: (f / "chat_template.jinja").unlink(), "none with DIR/model", "apply_chat_template"),
}


def found_at_the_check(config: RunConfig) -> list[Any]:
    files = ModelFiles()
    return [*directories(config, files), *name_and_shape(config, files), *chat_template.is_there(config)]


@pytest.mark.parametrize(("break_it", "found", "rest"), FAULTS.values(), ids=FAULTS)
def test_a_directory_that_is_no_whole_model_is_refused_at_the_check(
    break_it: Callable[[Path], None], found: str, rest: str, tmp_path: Path
) -> None:
    config = load_run_file(write_run(tmp_path))
    assert found_at_the_check(config) == []
    break_it(tmp_path / "model")
    mistakes = found_at_the_check(config)
    said = [str(mistake).replace(str(tmp_path), "DIR") for mistake in mistakes]
    assert said
    assert found in said[0]
    assert rest in said[0]
    assert mistakes[0].key in ("model.path", "data.chat_template")


def test_a_reference_is_held_to_the_same_and_needs_no_tokenizer(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_model(tmp_path / "reference", SHAPE)
    config = load_run_file(tmp_path / "run.yaml", ["model.reference_path=reference"])
    (tmp_path / "reference" / "tokenizer.json").unlink()
    assert found_at_the_check(config) == []
    a_cut_file(tmp_path / "reference")
    (mistake,) = found_at_the_check(config)
    assert mistake.key == "model.reference_path"


def test_the_index_decides_and_else_the_one_file(tmp_path: Path) -> None:
    """Stale shards beside those of the index, and a stray file, are not the model's."""
    write_model(tmp_path, SHAPE)
    write_weights(tmp_path / "stray.safetensors", {NORM: (3,)})
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    halves(tmp_path)
    write_weights(tmp_path / "model.safetensors", {NORM: (3,)})
    assert weight_files(tmp_path) == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert {name: one.shape for name, one in fitting_tensors(tmp_path, SHAPE).items()} == SHAPES


def test_what_a_loader_does_not_need_does_no_harm(tmp_path: Path) -> None:
    """A tied output layer that is stored all the same, and frequencies of old checkpoints."""
    write_model(tmp_path, SHAPE)
    inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, lm_head__weight=SHAPES[EMBEDDING], **{inv_freq.replace(".", "__"): (4,)})
    assert fitting_tensors(tmp_path, SHAPE).keys() == {*SHAPES, "lm_head.weight"}
    rewrite(tmp_path, lm_head__weight=(1, 48))
    with pytest.raises(Wrong, match=r"lm_head.weight with shape \[1, 48\]"):
        fitting_tensors(tmp_path, SHAPE)


@pytest.mark.parametrize("name", names())
def test_a_checkpoint_is_asked_for_what_the_trainer_loads(name: str) -> None:
    shape = load(name)
    assert hf_tensors(shape) == loaded_tensors(shape)


@pytest.mark.parametrize("kind", ["qwen3-tied", "qwen3_moe", "glm4", "glm4_moe", "gpt_oss", "qwen3_5", "qwen3_5_moe"])
def test_what_transformers_writes_fits(kind: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    from tests.support.tiny_models import tiny_model

    directory = tiny_model(kind, tmp_path)
    shape: ModelShape = from_hf(json.loads((directory / "config.json").read_text()))
    found = fitting_tensors(directory, shape)
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        theirs = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert {name: (one.dtype, list(one.shape)) for name, one in found.items()} == theirs


def test_a_layer_behind_the_last_is_carried_if_config_json_tells_of_it(tmp_path: Path) -> None:
    from tests.support.tiny_models import tiny_model, with_layer_behind

    directory = with_layer_behind(tiny_model("glm4_moe", tmp_path))
    shape: ModelShape = from_hf(json.loads((directory / "config.json").read_text()))
    behind = {"model.layers.4.eh_proj.weight", "model.layers.4.enorm.weight"}
    assert fitting_tensors(directory, shape).keys() == {*hf_tensors(shape), *behind}
    assert carried_tensors(directory, shape).keys() == behind
    with pytest.raises(Wrong, match=r"model.layers.4.eh_proj.weight and 1 other in .* with 4 layers"):
        fitting_tensors(directory, shape.model_copy(update={"carried_layers": 0}))


def test_experts_in_one_tensor_are_told_apart_and_have_to_be_those_of_the_model(tmp_path: Path) -> None:
    import torch

    from core.pretrained.stored_values import whole_values
    from core.sglang.expected import expected_tensors
    from tests.support.tiny_models import tiny_model, with_stacked_experts

    apart, stacked = (tiny_model("qwen3_5_moe", tmp_path / name) for name in ("apart", "stacked"))
    with_stacked_experts(stacked)
    shape = from_hf(json.loads((stacked / "config.json").read_text()))
    found, wanted = fitting_tensors(stacked, shape), fitting_tensors(apart, shape)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(whole_values(found[name]), whole_values(wanted[name])) for name in wanted)
    assert expected_tensors(stacked) == expected_tensors(apart) == hf_tensors(shape)
    said = r"experts.down_proj with shape \[8, 64, 48\] and 11 others, in .*; wanted \[6, 64, 48\]"
    with pytest.raises(Wrong, match=said):
        fitting_tensors(stacked, shape.model_copy(update={"num_experts": 6}))


def test_headers_of_any_bytes_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    file.write_bytes(whole)
    assert read_header(file)["a"].shape == (2,)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(Wrong):
            read_header(file)
    for text in (b"[]", b"{}x", b'{"a": 1}', b'{"a": {}}', header.replace(b"[2]", b"[3]"), b"[" * 5000):
        file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
        with pytest.raises(Wrong):
            read_header(file)


def test_no_directory_of_weights_is_the_files_of_none(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=r"without \*\.safetensors"):
        stored_tensors(tmp_path)
