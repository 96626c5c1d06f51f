"""Values of SGLang's options that other keys, or the model, rule out: an engine would end over them at its start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeGuard

from common.mistake import Mistake, show
from core.config.other_names import ENGINE_OPTIONS
from core.config.schema import RunConfig
from core.sglang.launch import OVERRIDES
from modelcfg import ModelShape

CONTEXT, EXPERT_RANKS = "context_length", "ep_size"
MOVED = "enable_eplb"  # SGLang's balancing of experts
CORRECT = "correct it, or remove it"


def of_themselves(config: RunConfig) -> Iterator[Mistake]:
    """Numbers that SGLang counts with, and what is said of config.json."""
    options = config.placement.engine_options
    pages, chunk, said = (options.get(name) for name in ("page_size", "chunked_prefill_size", OVERRIDES))
    if _is_number(pages) and pages < 1:
        yield Mistake(f"{ENGINE_OPTIONS}.page_size", None, show(pages), "tokens of a page, 1 or more", CORRECT)
    if _is_number(chunk) and chunk < 1 and chunk != -1:
        wanted = "tokens of a prompt, 1 or more, or -1 for prompts in one piece"
        yield Mistake(f"{ENGINE_OPTIONS}.chunked_prefill_size", None, show(chunk), wanted, CORRECT)
    if isinstance(said, str) and not _is_mapping(said):
        wanted = "a mapping as JSON in one text, such as '{\"rope_theta\": 10000.0}'"
        yield Mistake(f"{ENGINE_OPTIONS}.{OVERRIDES}", None, show(said), wanted, CORRECT)


def experts_stay(config: RunConfig) -> Iterator[Mistake]:
    """No expert elsewhere than where the first sync found it: the next ones are copies to the same places."""
    if config.placement.engine_options.get(MOVED) and config.placement.trainers != "none":
        wanted = "experts that stay where a sync brings them: with it an engine moves them while it generates"
        yield Mistake(f"{ENGINE_OPTIONS}.{MOVED}", None, "true", wanted, "remove it")


def context_holds_samples(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """A context that is the model's or less, and holds the longest sample."""
    context = config.placement.engine_options.get(CONTEXT)
    if not _is_number(context):
        return
    longest = config.sample_tokens
    if context < longest:
        wanted = f"{longest} or more, the tokens of the longest prompt and response"
        remedy = f"raise it to {longest}, or remove it"
        yield Mistake(f"{ENGINE_OPTIONS}.{CONTEXT}", None, show(context), wanted, remedy)
    elif shape is not None and context > shape.max_position_embeddings:
        most = shape.max_position_embeddings
        wanted = f"at most the {most} positions of {shape.name}, which an engine has without it"
        yield Mistake(f"{ENGINE_OPTIONS}.{CONTEXT}", None, show(context), wanted, "remove it")


def experts_are_shared_out(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Experts of an engine go over all of its ranks, or over those that its copies of experts leave."""
    options, ranks = config.placement.engine_options, config.placement.engine_tensor_parallel
    asked, copies = options.get(EXPERT_RANKS), options.get("moe_dp_size")
    if not _is_number(asked) or asked == 1 or (copies or 1) != 1:
        return
    key, remedy = f"{ENGINE_OPTIONS}.{EXPERT_RANKS}", "remove it" if ranks == 1 else f"set it to {ranks}, or remove it"
    if asked != ranks:
        wanted = f"1, or the {ranks} GPUs of an engine" if ranks > 1 else "1, for an engine of one GPU"
        yield Mistake(key, None, f"{show(asked)} with placement.engine_tensor_parallel {ranks}", wanted, remedy)
    elif shape is not None and not shape.num_experts:
        yield Mistake(key, None, f"{show(asked)} for {shape.name}, which has no experts", "1", "remove it")


def _is_number(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number; other kinds are refused as such."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
