"""Routing replay against what there is to replay."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.rows import GIVEN, is_of_rows
from core.config.schema import RunConfig
from modelcfg import ModelShape
from modelcfg.families import families

KEY = "algorithm.routing_replay"


def there_is_a_later_pass(config: RunConfig) -> Iterator[Mistake]:
    """An engine made the samples, ranks have whole rows, and the trainer's own experts a pass to be replayed in."""
    kind = config.algorithm.routing_replay
    if kind == "none":
        return
    if is_of_rows(config):
        wanted = f"none, as {GIVEN} and there is no older policy to stay close to"
        yield Mistake(KEY, None, kind, wanted, "remove it")
    elif kind == "trainer" and config.train.num_steps_per_rollout == 1:
        wanted = "several optimiser steps, in the later ones of which experts are replayed"
        remedy = "set it to engine, remove it, or raise train.num_steps_per_rollout"
        yield Mistake(KEY, None, f"{kind} with num_steps_per_rollout 1", wanted, remedy)
    for key in ("context_parallel", "tensor_parallel"):  # with experts these are sequence-parallel
        size = getattr(config.placement, key)
        if size > 1:
            wanted = "1, as only ranks that have whole rows replay experts"
            remedy = f"set {key} to 1, or remove routing_replay"
            yield Mistake(f"placement.{key}", None, f"{size} with routing_replay {kind}", wanted, remedy)


def the_model_has_experts(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """There are experts to choose from."""
    if shape is not None and config.algorithm.routing_replay != "none" and not shape.num_experts:
        found = f"{config.algorithm.routing_replay} for {shape.name}, which has no experts"
        yield Mistake(KEY, None, found, "none, or a model with experts", "remove it")


def engines_tell_of_them(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Engines of the family say which experts they chose."""
    if shape is None or config.algorithm.routing_replay != "engine":
        return
    if why := families()[shape.architecture].tells_no_experts:
        wanted = f"none or trainer, as engines of this family cannot tell their experts: {why}"
        remedy = "remove it, or set it to trainer with several optimiser steps"
        yield Mistake(KEY, None, f"engine for {shape.name}", wanted, remedy)
