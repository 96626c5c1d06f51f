"""Engines whose ranks compute attention in groups, each of samples of its own: SGLang's `enable_dp_attention`."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.config.layout import engine_nodes
from core.config.other_names import ENGINE_OPTIONS
from core.config.schema import RunConfig
from core.sglang.attention_groups import OPTIONS, attention_groups
from core.sglang.speculation import ALGORITHM, algorithm
from modelcfg import ModelShape
from modelcfg.families import families

SWITCH, SIZE, OUTPUT = (f"{ENGINE_OPTIONS}.{name}" for name in OPTIONS)


def groups_are_of_one_engine(config: RunConfig) -> Iterator[Mistake]:
    """Two groups or more, equally large, on one node, and each with a sample to work on."""
    placement = config.placement
    switch, size, output = (placement.engine_options.get(name) for name in OPTIONS)
    if not isinstance(size or 1, int) or not isinstance(switch or False, bool):
        return  # engine_options says so
    if output and not switch:
        wanted = "enable_dp_attention beside it, whose groups then have the whole output layer, too"
        yield Mistake(OUTPUT, None, "enable_dp_lm_head alone", wanted, "remove it, or set both with dp_size")
    if not switch:
        if size not in (None, 1):
            wanted = "one engine behind a server: else SGLang starts several there, and no sync fits them"
            remedy = "set enable_dp_attention: true beside it; more engines are placement.engines_per_node"
            yield Mistake(SIZE, None, f"dp_size {size} without enable_dp_attention", wanted, remedy)
        return
    yield from _sizes(placement.engine_tensor_parallel, size or 1)
    if attention_groups(placement.engine_options) == 1:
        return
    if (num_nodes := engine_nodes(placement)) > 1:
        wanted = "an engine on one node: over several, SGLang's programs listen on ports that the run does not hold"
        yield Mistake(SWITCH, None, f"true for engines over {num_nodes} nodes", wanted, "remove it, with dp_size")
    if algorithm(placement.engine_options):
        wanted = "groups alone: drafts beside them were not tried, and SGLang 0.5.16 refuses some"
        yield Mistake(SWITCH, None, f"true beside {ALGORITHM}", wanted, "remove it with dp_size, or the drafts")
    asked = placement.engine_max_running_requests
    if asked is not None and asked < (size or 1):
        found = f"{asked}, for engines with dp_size {size}"
        remedy = "raise it, or lower dp_size"
        yield Mistake("placement.engine_max_running_requests", None, found, "a sample or more for each group", remedy)


def family_has_groups(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """A family whose attention SGLang computes in groups."""
    if shape is None or attention_groups(config.placement.engine_options) == 1:
        return
    if families()[shape.architecture].no_attention_groups:
        wanted = "a family whose class in SGLang knows groups: with others ranks would mix up samples, and say nothing"
        yield Mistake(SWITCH, None, f"true for {shape.architecture}", wanted, "remove it, with dp_size")


def _sizes(ranks: int, size: int) -> Iterator[Mistake]:
    good = [one for one in range(2, ranks + 1) if ranks % one == 0]
    if size in good:
        return
    wanted = f"a divisor of engine_tensor_parallel, {ranks}, larger than 1"
    remedy = "raise placement.engine_tensor_parallel, or remove both options"
    if good:
        remedy = f"use {good[0]}" if len(good) == 1 else f"use one of {', '.join(map(str, good))}"
    yield Mistake(SIZE, None, f"dp_size {size} with enable_dp_attention", wanted, remedy)
