"""Speculative decoding, which SGLang's options switch on: where samples and log-probs stay the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.mistake import Mistake, show
from core.config.other_names import ENGINE_OPTIONS
from core.config.paths import DRAFT_MODEL
from core.config.schema import RunConfig
from core.sglang.speculation import (
    ALGORITHM,
    BRANCHES,
    DRAFT_TOKENS,
    NGRAM,
    PREFIX,
    STANDALONE,
    STEPS,
    algorithm,
    tokens_at_once,
)
from modelcfg import ModelShape

EXACT = tuple(f"{PREFIX}accept_threshold_{name}" for name in ("single", "acc"))
CORPUS = f"{PREFIX}ngram_external_corpus_path"
OF_DRAFT_MODELS = f"{PREFIX}draft_"
OF_A_CHAIN = (ALGORITHM, DRAFT_MODEL, STEPS, BRANCHES, DRAFT_TOKENS, *EXACT)  # what was planned for
REMOVE = f"remove {ENGINE_OPTIONS}.{ALGORITHM}"


def drafts(config: RunConfig) -> Iterator[Mistake]:
    """An algorithm, on GPUs, that a weight sync does not break, and options that leave the samples as they are."""
    placement, options = config.placement, _given(config)
    if not options or placement.engines == "none":
        return
    chosen = algorithm(options)
    if not chosen:
        first = next(iter(options))
        found, wanted = show(options[first]), f"{ALGORITHM}, without which it does nothing"
        yield Mistake(f"{ENGINE_OPTIONS}.{first}", None, found, wanted, f"set {ALGORITHM}: {NGRAM}, or remove it")
        return
    if placement.device == "cpu":
        yield from drafts_on_cpus(config, "cpu")
    elif chosen not in (NGRAM, STANDALONE) and placement.trainers != "none":
        wanted = f"{NGRAM}, {STANDALONE} or none: others draft with layers that share weights with the model"
        remedy = f"set it to {NGRAM}, which drafts without a model, or remove it"
        yield Mistake(f"{ENGINE_OPTIONS}.{ALGORITHM}", None, show(options[ALGORITHM]), wanted, remedy)
    else:
        yield from _samples_of_the_model(options)
        if chosen == NGRAM:
            yield from _of_ngrams(options)
        elif chosen == STANDALONE:
            yield from _of_a_chain(options)


def drafts_on_cpus(config: RunConfig, device: str) -> Iterator[Mistake]:
    """Speculative decoding by engines on CPUs.

    Args:
        device: as the message names it.
    """
    if chosen := algorithm(config.placement.engine_options):
        found = f"{chosen} with placement.device {device}"
        wanted = "GPUs: on CPUs SGLang takes the likeliest of drafted tokens, whatever the temperature"
        yield Mistake(f"{ENGINE_OPTIONS}.{ALGORITHM}", None, found, wanted, "remove it")


def beside_other_keys(config: RunConfig) -> Iterator[Mistake]:
    """What an engine that drafts does not do: heed seeds, tell which experts it took."""
    chosen, placement = algorithm(config.placement.engine_options), config.placement
    if not chosen or placement.device == "cpu" or placement.engines == "none":
        return
    beside = f"with {ALGORITHM} {chosen}"
    if config.rollout.deterministic:
        wanted = "false: whether a drafted token is taken is drawn without the sample's seed"
        yield Mistake("rollout.deterministic", None, f"true {beside}", wanted, f"set it to false, or {REMOVE}")
    if config.algorithm.routing_replay == "engine":
        wanted = "none or trainer: the engine would also tell the experts of drafted tokens that it did not take"
        yield Mistake("algorithm.routing_replay", None, f"engine {beside}", wanted, f"remove it, or {REMOVE}")


def states_are_not_drafted(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Layers with a state would keep one for each drafted token, which the memory plan does not know."""
    if shape is not None and shape.delta is not None and algorithm(config.placement.engine_options):
        found = f"{show(config.placement.engine_options[ALGORITHM])} for {shape.name}"
        wanted = "a model without layers with a state: they keep one for each token that is drafted"
        yield Mistake(f"{ENGINE_OPTIONS}.{ALGORITHM}", None, found, wanted, "remove it")


def _given(config: RunConfig) -> dict[str, Any]:
    """The options of speculative decoding that say something."""
    options = config.placement.engine_options
    return {name: value for name, value in options.items() if name.startswith(PREFIX) and value not in (None, False)}


def _samples_of_the_model(options: Mapping[str, Any]) -> Iterator[Mistake]:
    for name in EXACT:
        if options.get(name, 1) != 1:
            wanted = "1: below it tokens are taken that the model would not sample, and their log-probs do not say so"
            yield Mistake(f"{ENGINE_OPTIONS}.{name}", None, show(options[name]), wanted, "remove it")


def _of_a_chain(options: Mapping[str, Any]) -> Iterator[Mistake]:
    """A model of its own drafts one token after the other."""
    yield from _enough(options)
    for name in (name for name in options if name not in OF_A_CHAIN):
        wanted = f"nothing with {STANDALONE}: the memory plan does not know it, and it was not tried"
        yield Mistake(f"{ENGINE_OPTIONS}.{name}", None, show(options[name]), wanted, "remove it")
    if options.get(BRANCHES, 1) != 1:
        wanted = "1: each drafted token is followed by one other"
        yield Mistake(f"{ENGINE_OPTIONS}.{BRANCHES}", None, show(options[BRANCHES]), wanted, "remove it")
    drafted, steps = tokens_at_once(options), options.get(STEPS)
    if isinstance(steps, int) and steps + 1 != drafted:
        found = f"{steps} with {DRAFT_TOKENS} {drafted}"
        wanted = f"{drafted - 1}: each step drafts a token, and one is sampled anyway"
        yield Mistake(f"{ENGINE_OPTIONS}.{STEPS}", None, found, wanted, f"remove it, or {DRAFT_TOKENS}")


def _enough(options: Mapping[str, Any]) -> Iterator[Mistake]:
    drafted = options.get(DRAFT_TOKENS, 2)
    if isinstance(drafted, int) and drafted < 2:
        wanted = "2 or more: one of them is the token that is sampled anyway"
        yield Mistake(f"{ENGINE_OPTIONS}.{DRAFT_TOKENS}", None, show(drafted), wanted, "raise it, or remove it")


def _of_ngrams(options: Mapping[str, Any]) -> Iterator[Mistake]:
    yield from _enough(options)
    if CORPUS in options:
        wanted = "nothing: SGLang reads it with a tokenizer, which the engines of a run do not load"
        yield Mistake(f"{ENGINE_OPTIONS}.{CORPUS}", None, show(options[CORPUS]), wanted, "remove it")
    for name in (name for name in options if name.startswith(OF_DRAFT_MODELS)):
        wanted = f"nothing with {NGRAM}, which drafts without a model"
        yield Mistake(f"{ENGINE_OPTIONS}.{name}", None, show(options[name]), wanted, "remove it")
