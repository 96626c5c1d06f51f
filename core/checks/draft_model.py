"""The model that drafts for an engine's own (`speculative_algorithm: STANDALONE`): whether SGLang serves both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.mistake import Mistake, Wrong
from core.checks.model import of_another_vocabulary, source
from core.checks.model_files import ModelFiles
from core.config.other_names import ENGINE_OPTIONS
from core.config.paths import DRAFT_MODEL, PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.pretrained.quantised import scheme_of
from core.sglang.launch import OVERRIDES
from core.sglang.speculation import ALGORITHM, STANDALONE, algorithm, draft_model
from modelcfg import ModelShape

KEY = f"{ENGINE_OPTIONS}.{DRAFT_MODEL}"
PLAIN = "a model with attention to all tokens in every layer, without experts"
AS_A_HEAD = ("mimo",)  # families of which SGLang takes the layers for several tokens, where one drafts
CHOOSE = "choose a smaller model of the same family"


def draft_model_fits(config: RunConfig, files: ModelFiles) -> Iterator[Mistake]:
    """A directory with the vocabulary, the length and the form that drafting for the model needs."""
    placement = config.placement
    if algorithm(placement.engine_options) != STANDALONE or placement.device == "cpu" or placement.engines == "none":
        return
    path = draft_model(placement.engine_options)
    if path is None or path.startswith(PACKAGE_PREFIX):
        wanted = "the HuggingFace directory of a smaller model with the same tokenizer"
        found = path or f"nothing, with {ALGORITHM} {STANDALONE}"
        yield Mistake(KEY, None, found, wanted, f"set it, or choose another {ALGORITHM}")
        return
    mistakes = list(source(KEY, path, files))
    yield from mistakes
    if not mistakes:
        yield from _both_are_whole(config, path)
        yield from of_another_vocabulary(KEY, config.model.path, path)
        drafting, model = files.own_shape(path), files.shape(config.model)
        yield from _forms(path, drafting, model)
        if drafting is not None and model is not None:
            yield from _sizes(config, drafting, model)


def _both_are_whole(config: RunConfig, path: str) -> Iterator[Mistake]:
    """Weights as they are computed with: what SGLang is told of one config.json otherwise holds for both."""
    options, own = config.placement.engine_options, Path(config.model.path)
    told = f"{ALGORITHM} {STANDALONE}"
    quantised = "weights that are not quantised"
    if _quantised(Path(path)):
        yield Mistake(KEY, None, f"{path}, whose weights are quantised", quantised, CHOOSE)
    if _quantised(own):
        remedy = f"write such: ebbtide convert {own} OUT; or remove {ENGINE_OPTIONS}.{ALGORITHM}"
        yield Mistake("model.path", None, f"{own}, whose weights are quantised, with {told}", quantised, remedy)
    if (word := config.placement.engine_weights) != "whole":
        wanted = f"weights as they are trained: what makes them {word} would be taken for the model that drafts, too"
        yield Mistake("placement.engine_weights", None, f"{word} with {told}", wanted, "remove one of the two")
    if OVERRIDES in options:
        wanted = f"nothing with {told}: it would change both models"
        yield Mistake(f"{ENGINE_OPTIONS}.{OVERRIDES}", None, str(options[OVERRIDES]), wanted, "remove it")


def _quantised(directory: Path) -> bool:
    try:
        return directory.is_dir() and scheme_of(directory) is not None
    except Wrong:  # in a way that is not known
        return True


def _forms(path: str, drafting: ModelShape | None, model: ModelShape | None) -> Iterator[Mistake]:
    if drafting is not None and drafting.architecture in AS_A_HEAD:
        wanted = "another family: of this one SGLang would draft with its heads for several tokens"
        yield Mistake(KEY, None, f"{path}, {drafting.architecture}", wanted, "choose a model of another family")
    elif drafting is None or not _plain(drafting) or drafting.num_experts:
        yield Mistake(KEY, None, f"{path}, {drafting.architecture if drafting else 'of no known form'}", PLAIN, CHOOSE)
    if model is not None and model.delta is None and not _plain(model):  # states: `core.checks.speculation`
        found = f"{STANDALONE} for {model.name}"
        wanted = "a model with attention to all tokens in every layer: for others it was not tried"
        yield Mistake(f"{ENGINE_OPTIONS}.{ALGORITHM}", None, found, wanted, "remove it, or set it to NGRAM")


def _plain(shape: ModelShape) -> bool:
    return shape.delta is None and shape.latent is None and shape.window is None


def _sizes(config: RunConfig, drafting: ModelShape, model: ModelShape) -> Iterator[Mistake]:
    options, ranks = config.placement.engine_options, config.placement.engine_tensor_parallel
    if drafting.vocab_size != model.vocab_size:
        found = f"{drafting.name} with {drafting.vocab_size} rows of vocabulary"
        wanted = f"{model.vocab_size}, as the model has, padding and all: SGLang refuses others"
        yield Mistake(KEY, None, found, wanted, CHOOSE)
    length = options.get("context_length") or model.max_position_embeddings
    if isinstance(length, int) and length > drafting.max_position_embeddings:
        found = f"{drafting.name} for {drafting.max_position_embeddings} tokens"
        wanted = f"one for {length}, the longest sequence of the engine"
        remedy = f"set {ENGINE_OPTIONS}.context_length to {drafting.max_position_embeddings}, or choose another"
        yield Mistake(KEY, None, found, wanted, remedy)
    groups = drafting.num_query_groups
    if drafting.num_attention_heads % ranks or (groups % ranks and ranks % groups) or drafting.ffn_hidden_size % ranks:
        found = f"{drafting.name} with {drafting.num_attention_heads} heads in {groups} groups"
        wanted = f"heads, groups and columns that engine_tensor_parallel = {ranks} divides, as it divides the model's"
        yield Mistake(KEY, None, found, wanted, "lower engine_tensor_parallel, or choose another")
