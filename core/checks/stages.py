"""Layers of pipeline stages: whether those that a run file says add up with the model's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from common.mistake import Mistake
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig
from modelcfg import ModelShape
from modelcfg.stages import Stages, balanced

ENDS: tuple[Literal["first", "last"], ...] = ("first", "last")


def ends_have_a_pipeline(config: RunConfig) -> Iterator[Mistake]:
    """A stage of its own length has others beside it."""
    stages = pipeline_stages(config.placement)
    for end in ENDS if stages.number == 1 else ():
        count = getattr(stages, end)
        if count is not None:
            found = f"{count} with pipeline_parallel 1, whose one stage has all layers"
            remedy = f"raise pipeline_parallel, or leave pipeline_{end}_layers out"
            yield Mistake(f"placement.pipeline_{end}_layers", None, found, "pipeline_parallel > 1", remedy)


def layers_add_up(placement: PlacementConfig, shape: ModelShape) -> Iterator[Mistake]:
    """Every stage has a layer, and every layer a stage."""
    stages, layers = pipeline_stages(placement), shape.num_layers
    if stages.number == 1 or stages.add_up(layers):
        return
    divisors = [str(size) for size in range(1, min(layers, 64) + 1) if layers % size == 0]
    found, wanted = f"{stages.number}", f"a divisor of the {layers} layers of {shape.name}"
    remedy = f"use one of {', '.join(divisors)}"
    if stages.number > layers:
        yield Mistake("placement.pipeline_parallel", None, found, wanted, remedy)
    elif (stages.first, stages.last) == (None, None):
        remedy += f", or {_even(stages.number, layers)}"
        wanted += ", or a last stage of another length"
        yield Mistake("placement.pipeline_parallel", None, found, wanted, remedy)
    else:
        yield _ends(stages, layers, shape.name)


def _ends(stages: Stages, layers: int, name: str) -> Mistake:
    """What is said of an end leaves the others no whole number of layers each."""
    end: Literal["first", "last"] = "first" if stages.last is None else "last"
    said = {one: count for one in ENDS if (count := getattr(stages, one)) is not None}
    left, others = max(0, layers - sum(said.values())), stages.number - len(said)
    asked = " and ".join(f"pipeline_{one}_layers {count}" for one, count in said.items())
    rest = f"{left or 'none'} left for {others or 'no'} other stage{'s' * (others > 1)}"
    found = f"{asked} of the {layers} layers of {name}, and {rest}"
    wanted = "the same number of layers, 1 or more, for each of these" if others else "all layers on the two stages"
    return Mistake(f"placement.pipeline_{end}_layers", None, found, wanted, _ways(stages, end, layers))


def _ways(stages: Stages, end: Literal["first", "last"], layers: int) -> str:
    """The next numbers that would do at this end; where there are none, the most even stages."""
    present, possible = getattr(stages, end), stages.possible(end, layers)
    below, above = ([one for one in possible if one < present], [one for one in possible if one > present])
    near = [str(one) for one in (*below[-1:], *above[:1])]
    return f"set pipeline_{end}_layers to {' or '.join(near)}" if near else _even(stages.number, layers)


def _even(number: int, layers: int) -> str:
    """set pipeline_last_layers alone, to 13, for stages of 16, 16, 16 and 13 layers"""
    stages = balanced(number, layers)
    *others, last = (str(len(own)) for own in stages.layers(layers))
    how = "set neither end" if stages.last is None else f"set pipeline_last_layers alone, to {stages.last}"
    if stages.first is not None:
        how = f"set pipeline_first_layers to {stages.first} and pipeline_last_layers to {stages.last}"
    return f"{how}, for stages of {', '.join(others)} and {last} layers"
